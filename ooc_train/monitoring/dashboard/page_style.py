"""How the Training page looks: its grid, its light and its dark theme."""

STYLE = """
:host { font-family: Helvetica, Arial, sans-serif; color: var(--ink, #1f2733); }
:host > div { display: block; width: 100%; }
h1 { font-size: 21px; margin: 0; }
@media (min-width: 992px) { h1, p.error { padding-right: 350px; } }
p.error { color: var(--bad, #c0392b); }
h1 span { font-weight: normal; color: var(--soft, #5d6878); }
h1 b { font-size: 12px; color: white; border-radius: 10px; padding: 3px 10px;
       vertical-align: 3px; margin-left: 6px; font-weight: normal; }
summary, h2 { font-size: 14px; font-weight: bold; margin: 2px 0 6px; cursor: pointer; }
h2 { cursor: default; }
p { margin: 5px 0; font-size: 13px; color: var(--soft, #5d6878); overflow-wrap: anywhere; }
.bar { background: var(--line, #dfe4ea); height: 8px; border-radius: 4px; overflow: hidden;
       margin-top: 10px; }
.bar i { display: block; height: 100%; }
section { display: grid; grid-template-columns: repeat(auto-fill, minmax(114px, 1fr)); gap: 8px;
          margin-top: 12px; }
dl { margin: 0; padding: 8px 10px; background: var(--tile, #f3f5f8); border-radius: 6px; }
dt { font-size: 12px; color: var(--soft, #5d6878); }
dd { font-size: 19px; margin: 2px 0 0; white-space: nowrap; }
small { font-size: 12px; color: var(--soft, #5d6878); display: block; white-space: normal; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th { text-align: left; font-weight: normal; color: var(--soft, #5d6878); padding: 3px 14px 3px 0; }
td:first-child { white-space: nowrap; width: 1%; }
.scroll th, .scroll td { white-space: nowrap; }
td { padding: 4px 14px 4px 0; border-top: 1px solid var(--line, #dfe4ea); vertical-align: top; }
td i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; }
tr.projected td, tr.shown td { font-weight: bold; }
tr.apart td { color: var(--soft, #5d6878); }
"""
"""Style of the texts; widgets and plots get the same colours."""

WIDGETS = """
:host { font-family: Helvetica, Arial, sans-serif; }
label { color: var(--soft); font-size: 12px; }
.bk-input, .bk-btn, .choices__inner, .choices__list, .bk-tab {
  background: var(--tile) !important; color: var(--ink) !important; border-color: var(--line); }
.bk-btn.bk-active, .bk-tab.bk-active, .choices__list--multiple .choices__item {
  background: var(--chosen) !important; color: white !important; }
"""

TEMPLATE = """{% extends "base.html" %}
{% block extra_resources %}
<style>
:root { --ground: #eef1f5; --card: #fff; --tile: #f3f5f8; --ink: #1f2733; --soft: #5d6878;
        --line: #dfe4ea; --chosen: #2f6fb0; --bad: #c0392b; }
:root[data-theme=dark] { --ground: #11161d; --card: #1a212b; --tile: #232c38; --ink: #e4e9f0;
        --soft: #9aa7b8; --line: #313c4a; --chosen: #3b7fc4; --bad: #ff8a7a; }
html, body { background: var(--ground); color: var(--ink); }
.navbar ul { background: var(--card); border-bottom: 1px solid var(--line); }
.navbar li a { color: var(--ink); }
#training { display: grid; grid-template-columns: minmax(0, 1fr); gap: 14px; padding: 8px 2px 24px;
            max-width: 1900px; margin: 0 auto; }
#training > div { min-width: 0; background: var(--card); border: 1px solid var(--line);
                  border-radius: 8px; padding: 12px 14px; }
#training .head { position: relative; }
#training.waiting > div:not(.head) { visibility: hidden; }
#training .head .tools { position: absolute; top: 12px; right: 14px; }
#training .plot { height: 300px; }
#training .loss { height: 430px; display: flex; flex-direction: column; }
#training .tools { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: end;
                   min-height: 36px; }
#training .body { flex: 1; min-height: 0; }
#training .loss .tools > :last-child { flex: 1; min-width: 240px; }
#theme { border: 1px solid var(--line); border-radius: 6px; background: var(--tile);
         color: var(--ink); font-size: 13px; padding: 6px 10px; cursor: pointer; }
@media (max-width: 991px) {
  #training .head .tools { position: static; margin-top: 12px; }
  #training .loss { height: 500px; }
}
@media (min-width: 992px) {
  #training { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
  #training .wide { grid-column: 1 / span 2; }
}
</style>
{% endblock %}
{% block content %}
{% from macros import embed %}
<div id="training">
  <div class="wide head"><div>{{ embed(roots.training_head) }}</div>
    <div class="tools">{{ embed(roots.training_choice) }}
      <button id="theme" type="button">Dark</button></div></div>
  <div class="wide loss">
    <div class="tools">{{ embed(roots.training_over) }}{{ embed(roots.training_scale) }}
      <div>{{ embed(roots.training_compared) }}</div></div>
    <div class="body">{{ embed(roots.training_loss) }}</div></div>
  <div class="wide">{{ embed(roots.training_runs) }}</div>
  <div class="plot">{{ embed(roots.training_memory_tabs) }}</div>
  <div class="plot">{{ embed(roots.training_rate) }}</div>
  <div class="plot">{{ embed(roots.training_time) }}</div>
  <div class="plot">{{ embed(roots.training_steps_tabs) }}</div>
  <div>{{ embed(roots.training_settings) }}</div>
  <div>{{ embed(roots.training_plan) }}</div>
  <div class="wide">{{ embed(roots.training_events) }}</div>
</div>
{{ plot_script }}
<script>
(() => {
  const button = document.getElementById("theme");
  const kept = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("ooc_train-theme", value);
      return localStorage.getItem("ooc_train-theme");
    } catch { return null; }
  };
  let dark = (kept() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"))
    === "dark";
  const paint = () => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
    const of = (name) =>
      getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
    const colours = {
      axis_label_text_color: of("soft"), major_label_text_color: of("soft"),
      text_color: of("ink"), label_text_color: of("ink"), grid_line_color: of("line"),
      axis_line_color: of("line"), major_tick_line_color: of("line"),
      minor_tick_line_color: null, outline_line_color: null,
    };
    const open = window.Bokeh && Bokeh.documents[0];
    if (!open || !open.is_idle) { setTimeout(paint, 100); if (!open) return; }
    for (const model of open._all_models.values()) {
      const known = Object.entries(colours).filter(([name]) => name in model.properties);
      // The colours are this browser's alone.
      if (known.length) model.setv(Object.fromEntries(known), {sync: false});
    }
  };
  const page = document.getElementById("training");
  const wait = () => {
    const head = window.Bokeh?.documents[0]?.get_model_by_name("training_head");
    const waits = head && !head.text.includes("<section>");
    page.classList.toggle("waiting", Boolean(waits));
    if (!head || waits) setTimeout(wait, 500);
  };
  wait();
  button.onclick = () => { dark = !dark; kept(dark ? "dark" : "light"); paint(); };
  paint();
})();
</script>
{% endblock %}
"""
