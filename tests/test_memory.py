import dataclasses
import os
import subprocess
import sys
import textwrap

import psutil
import pytest

from ooc_train.errors import CeilingExceeded
from ooc_train.memory import ceiling as memory
from ooc_train.memory import system
from ooc_train.memory.budget import Budget
from ooc_train.memory.ceiling import Ceiling, Projection, Term
from ooc_train.memory.processes import (
    ProcessMemory,
    held_by,
    measure,
    measure_tree,
    process_tree,
    reset_peak,
)
from ooc_train.memory.system import (
    available_memory,
    in_container,
    machine_memory,
    out_of_memory_kills,
)
from tests.groups import Groups

pytestmark = pytest.mark.alone

MIB = 1024**2
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def run(code):
    """Run code in a fresh process, whose memory no other test has touched; give what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return [int(word) for word in result.stdout.split()]


def test_a_ceiling_is_what_was_given():
    assert Ceiling.of("64 MiB") == Ceiling(64 * MIB, "given")
    assert Ceiling.of(64 * MIB) == Ceiling.of("64MiB")
    assert repr(Ceiling.of(2**20)) == "Ceiling(limit=1048576, source='given')"
    assert str(Ceiling(1536 * MIB, "the cluster's")) == "1.5 GiB (the cluster's)"


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("100", "100 is bytes; 100MiB?"),
        (512, "512 is bytes; 512MiB?"),
        ("8", "8 is bytes; 8GiB?"),
        ("100 B", "given"),
        ("512KiB", "given"),
        (2**20, "given"),
    ],
)
def test_few_bytes_without_a_unit_are_doubted(value, source):
    assert Ceiling.of(value).source == source


def test_no_ceiling_is_half_of_what_is_available():
    ceiling = Ceiling.of(None)
    assert ceiling.source == "half of what is available"
    assert 0 < ceiling.limit <= machine_memory() // 2


def test_what_the_command_line_holds_is_a_part_of_its_ceiling(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 600 * MIB)
    monkeypatch.setattr(memory, "measure", lambda: ProcessMemory(1, "", 90 * MIB, 80 * MIB))
    assert Ceiling.of(None).limit == 300 * MIB
    assert Ceiling.of(None, whole_process=True).limit == 340 * MIB


@pytest.mark.parametrize("contained", [True, False])
def test_in_a_container_a_job_takes_what_it_needs_up_to_a_share(monkeypatch, contained):
    monkeypatch.setattr(memory, "available_memory", lambda: 1000 * MIB)
    monkeypatch.setattr(memory, "in_container", lambda: contained)
    ceiling = Ceiling.of(None)
    assert Ceiling.of(ceiling) is ceiling
    taken = [str(ceiling.raised_to(need * MIB)) for need in (1, 500, 501, 800, 801)]
    half = "500 MiB (half of what is available)"
    if not contained:
        assert taken == [half] * 5
        return
    assert taken == [
        half,
        half,
        "501 MiB (what the job needs, 50 % of what is available)",
        "800 MiB (what the job needs, 80 % of what is available)",
        "800 MiB (80 % of what is available)",
    ]
    given = Ceiling.of(500 * MIB)
    assert given.raised_to(501 * MIB) is given


def test_a_job_of_one_process_takes_what_it_needs(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1000 * MIB)
    monkeypatch.setattr(memory, "in_container", lambda: True)

    def choose(room):
        return [Term("buffers", max(600 * MIB, room), "no less will do")]

    with Budget(None) as budget:
        terms = budget.settle(choose)
        report = budget.report(terms)
    assert report.projected == report.ceiling == (600 + 16) * MIB
    assert report.ceiling_source == "what the job needs, 62 % of what is available"
    with (
        Budget(None) as budget,
        pytest.raises(
            CeilingExceeded, match=r"needs 816 MiB and its memory ceiling is 800 MiB \(80 % of what"
        ),
    ):
        budget.require([Term("buffers", 800 * MIB, "")])


@pytest.mark.parametrize("value", [0, "0 GiB", 0.4])
def test_a_ceiling_of_nothing_is_refused(value):
    with pytest.raises(ValueError, match="memory_ceiling=0 leaves no memory"):
        Ceiling.of(value)


@pytest.mark.parametrize("value", ["lots", -1, True])
def test_a_ceiling_that_is_no_number_of_bytes_is_refused(value):
    with pytest.raises(ValueError, match="is not a number of bytes"):
        Ceiling.of(value)


def test_a_ceiling_above_the_machine_is_refused_with_both_figures(monkeypatch):
    monkeypatch.setattr(memory, "machine_memory", lambda: 24 * 1024 * MIB)
    with pytest.raises(ValueError, match=r"is 32 GiB, but .* has 24 GiB"):
        Ceiling.of("32GiB")
    assert Ceiling.of("24GiB").limit == 24 * 1024 * MIB


def test_a_ceiling_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ceiling.of(1).limit = 2  # type: ignore[misc]


def test_a_projection_is_the_sum_of_its_terms():
    terms = (Term("baseline", 3 * MIB, "here"), Term("buffers", 5, "there"), Term("sums", 0, ""))
    projection = Projection(terms)
    assert projection.total == 3 * MIB + 5
    assert projection.table() == [
        ("baseline", "3 MiB", "here"),
        ("buffers", "5 B", "there"),
        ("sums", "0 B", ""),
        ("projected", "3 MiB", ""),
    ]


def test_a_term_below_zero_is_refused():
    with pytest.raises(ValueError, match="'buffers' has -1 bytes"):
        Term("buffers", -1, "")


@linux
def test_the_peak_stays_after_the_memory_is_given_back_and_can_be_reset():
    before, full, freed_peak, freed, reset_worked, after = run(
        """
        import mmap
        from ooc_train.memory.processes import measure, reset_peak
        print(measure().peak)
        block = mmap.mmap(-1, 64 * 1024**2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.write(b"1" * len(block))
        print(measure().current)
        block.close()
        print(measure().peak, measure().current, int(reset_peak()), measure().peak)
        """
    )
    # bytes of the same length were made to fill the block: twice 64 MiB at the peak.
    assert 60 * MIB < full - before < 70 * MIB
    assert 120 * MIB < freed_peak - before < 136 * MIB
    assert freed - before < 8 * MIB
    if reset_worked:
        assert after - before < 8 * MIB


@linux
def test_a_mapped_file_that_others_share_is_charged_by_share(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(b"1" * 64 * MIB)
    code = f"""
        import mmap, sys
        from ooc_train.memory.processes import measure
        file = open({str(path)!r}, "rb")
        block = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        before = measure().current
        checksum = sum(block[::4096])
        print(measure().current - before, flush=True)
        """
    (alone,) = run(code)
    command = [sys.executable, "-c", textwrap.dedent(code) + "sys.stdin.read()\n"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (shared,) = run(code)
        other.communicate("")
    assert 60 * MIB < alone < 68 * MIB
    assert 28 * MIB < shared < 36 * MIB


@linux
def test_a_process_whose_shared_pages_cannot_be_read_pays_for_all_of_them(monkeypatch):
    read = system.read_text

    def deny(path):
        if path.endswith("smaps_rollup"):
            raise PermissionError(path)
        return read(path)

    share = measure()
    monkeypatch.setattr("ooc_train.memory.processes.read_text", deny)
    monkeypatch.setattr("ooc_train.memory.processes._SHARE_SECONDS", -1.0)
    everything = measure()
    assert everything.current > share.current
    assert everything.note
    assert not share.note


@linux
def test_pages_are_walked_through_once_until_they_change(tmp_path):
    # A process of its own: other threads of this one may measure it meanwhile.
    path = tmp_path / "mapped"
    path.write_bytes(b"1" * 8 * MIB)
    walks = run(f"""
        import mmap, os
        from ooc_train.memory import processes
        read, walks = processes.read_text, []
        def counted(path):
            walks.extend([path] * path.endswith("smaps_rollup"))
            return read(path)
        processes.read_text, processes._SHARE_SECONDS = counted, 3600.0
        file = open({str(path)!r}, "rb")
        block = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        for _ in range(5):  # the first calls load what they need
            processes.measure()
        before = len(walks)
        processes.measure()
        print(len(walks) - before)
        checksum = sum(block[::4096])
        processes.measure()
        print(len(walks) - before)
        processes.measure(os.getpid())  # as other processes ask of this one
        print(len(walks) - before)
        """)
    assert walks == [0, 1, 2]


@linux
def test_a_process_that_ended_is_no_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        # A zombie first: it is listed, but holds nothing.
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError, match="has ended"):
            measure(ended.pid)
    with pytest.raises(ProcessLookupError, match="no process"):
        measure(ended.pid)


@linux
def test_the_tree_is_this_process_its_children_and_theirs():
    code = """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        print(child.pid, flush=True)
        input()
        child.communicate(b"")
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert process_tree(child.pid) == [child.pid, grandchild]
        tree = process_tree()
        assert tree[0] == os.getpid()
        assert {child.pid, grandchild} <= set(tree)
        measured = {process.pid: process for process in measure_tree(child.pid)}
        assert list(measured) == [child.pid, grandchild]
        assert all(process.peak >= process.current > MIB for process in measured.values())
        child.communicate("\n")
    assert measure_tree(child.pid) == []


@linux
def test_processes_are_named_by_their_role():
    roles = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import multiprocessing, time
                from ooc_train.memory.processes import measure_tree
                if __name__ == "__main__":
                    context = multiprocessing.get_context("spawn")
                    context.Process(target=time.sleep, args=(60,), daemon=True).start()
                    names = []
                    while "worker" not in names or "resource tracker" not in names:
                        time.sleep(0.01)  # they bear their parent's name until they run
                        names = [process.name for process in measure_tree()]
                    print(*names, sep="\\n")
                """
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert roles[0].startswith("python")
    assert sorted(roles[1:]) == ["resource tracker", "worker"]


def test_the_meter_says_so_where_there_is_no_proc(monkeypatch):
    monkeypatch.setattr(sys, "platform", "freebsd")
    assert "whole life" in measure().note
    assert measure().peak > MIB
    other = measure(os.getppid())
    assert MIB / 4 < other.current == other.peak
    assert other.current == held_by(os.getppid(), share=0)
    with pytest.raises(ProcessLookupError, match="has ended"):
        measure(2**22 + 1)  # above the highest number that Linux gives


def test_resetting_the_peak_says_whether_it_worked(monkeypatch):
    def deny(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr("builtins.open", deny)
    assert reset_peak() is False


def test_memory_without_proc_is_what_psutil_tells(tmp_path):
    found = psutil.virtual_memory()
    assert machine_memory(str(tmp_path)) == found.total
    assert abs(available_memory(str(tmp_path)) - found.available) < found.total / 4
    assert not in_container(str(tmp_path))


@pytest.fixture
def groups(tmp_path):
    return Groups(tmp_path)


def memory_of(groups):
    return machine_memory(str(groups.proc)), available_memory(str(groups.proc))


def test_without_a_control_group_the_machine_counts(groups):
    assert memory_of(groups) == (64 * MIB, 48 * MIB)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_tightest_ancestor_counts(groups, version):
    groups.mount_as(version, "/slice/job")
    groups.add(version, "slice/job", limit=40 * MIB, usage=5 * MIB)
    assert memory_of(groups) == (40 * MIB, 35 * MIB)
    groups.add(version, "slice", limit=50 * MIB, usage=30 * MIB)
    assert memory_of(groups) == (40 * MIB, 20 * MIB)
    # What only caches files can be had back.
    groups.add(version, "slice", limit=50 * MIB, usage=30 * MIB, cached=6 * MIB)
    assert memory_of(groups) == (40 * MIB, 26 * MIB)
    groups.add(version, "slice", limit=30 * MIB, usage=31 * MIB)
    assert memory_of(groups) == (30 * MIB, 0)


@pytest.mark.parametrize(("version", "unlimited"), [("v1", 2**63 - 4096), ("v2", "max")])
def test_a_control_group_without_a_limit_does_not_count(groups, version, unlimited):
    groups.mount_as(version, "/job")
    groups.add(version, "job", limit=unlimited, usage=MIB)
    assert memory_of(groups) == (64 * MIB, 48 * MIB)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("path", "root"), [("/docker/abc", "/docker/abc"), ("/docker/abc", "/docker/abc/elsewhere")]
)
def test_a_container_may_see_its_own_group_as_the_root(groups, version, path, root):
    groups.mount_as(version, path, root)
    groups.add(version, ".", limit=16 * MIB, usage=MIB)
    assert memory_of(groups) == (16 * MIB, 15 * MIB)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_the_kernel_ended_for_memory_is_counted_by_the_group_or_the_machine(groups, version):
    groups.machine(64 * MIB, 48 * MIB, kills=7)
    assert out_of_memory_kills(str(groups.proc)) == 7
    groups.mount_as(version, "/slice/job")
    groups.add(version, "slice/job", limit=40 * MIB, usage=5 * MIB)
    assert out_of_memory_kills(str(groups.proc)) == 7  # of an old kernel, which does not say
    groups.add(version, "slice/job", limit=40 * MIB, usage=5 * MIB, kills=2)
    assert out_of_memory_kills(str(groups.proc)) == 2
    (groups.proc / "vmstat").unlink()
    (groups.mount / "slice/job" / "memory.stat").unlink()
    assert out_of_memory_kills(str(groups.proc)) == 2
    assert out_of_memory_kills(str(groups.proc / "nowhere")) == 0
