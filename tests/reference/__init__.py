"""The reference of the public interface, as a site: `python -m tests.reference FOLDER`."""
