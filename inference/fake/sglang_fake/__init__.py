"""A fake SGLang server that plays a script, for tests and demos without a GPU.

It answers as SGLang 0.5.23 was recorded to answer (tests/fixtures/sglang); the README beside
this package says what is checked against those recordings and what is stricter on purpose.
"""

from sglang_fake.script import Script, ScriptError, check_script, load_script, parse_script
from sglang_fake.server import FakeSGLang
from sglang_fake.settings import Settings, ToolCallParser

__all__ = [
    "FakeSGLang",
    "Script",
    "ScriptError",
    "Settings",
    "ToolCallParser",
    "check_script",
    "load_script",
    "parse_script",
]
