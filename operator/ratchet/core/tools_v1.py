"""The tools as tasks of version 1 are told of them, kept as they were.

A request is rebuilt from the journal, byte by byte, for as long as its task lives; so what an
earlier version of the operator told a model stays here when `tools` changes.
"""

from collections.abc import Mapping
from typing import Any, Final

TOOLS_V1: Final[Mapping[str, Mapping[str, Any]]] = {
    "bash": {
        "type": "function",
        "function": {
            "name": "bash",
            "description": (
                "Run a command in a bash that lives as long as the task: the "
                "directory, variables, functions and options stay from call to "
                "call. There is no terminal and no input. Output beyond 30,000 "
                "bytes is cut in the middle and kept in a file that the result "
                "names."
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    "command": {
                        "type": "string",
                        "description": "The command, of one or many lines.",
                        "minLength": 1,
                    },
                    "timeout": {
                        "type": "integer",
                        "minimum": 1,
                        "description": (
                            "Seconds after which the command and all it started "
                            "are killed. Default and maximum: the limit of the "
                            "sandbox."
                        ),
                    },
                },
                "required": ["command"],
                "additionalProperties": False,
            },
        },
    },
    "read_file": {
        "type": "function",
        "function": {
            "name": "read_file",
            "description": "Read a text file with line numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {
                        "type": "string",
                        "description": "Path of a file, absolute or relative to the workspace.",
                        "minLength": 1,
                    },
                    "offset": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "Lines to leave out at the start. Default 0.",
                    },
                    "limit": {
                        "type": "integer",
                        "minimum": 1,
                        "description": "Lines to read at most. Default 2000.",
                    },
                },
                "required": ["path"],
                "additionalProperties": False,
            },
        },
    },
    "write_file": {
        "type": "function",
        "function": {
            "name": "write_file",
            "description": (
                "Write a file as a whole, with the folders on its way. A file that "
                "is there is only replaced with overwrite."
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {
                        "type": "string",
                        "description": "Path of a file, absolute or relative to the workspace.",
                        "minLength": 1,
                    },
                    "content": {
                        "type": "string",
                        "description": "The whole new content.",
                    },
                    "overwrite": {
                        "type": "boolean",
                        "description": "Replace a file that is there. Default false.",
                    },
                },
                "required": ["path", "content"],
                "additionalProperties": False,
            },
        },
    },
    "search_replace": {
        "type": "function",
        "function": {
            "name": "search_replace",
            "description": (
                "Change parts of a file. `content` holds one or more blocks of the "
                "form\n<<<<<<< SEARCH\nold lines\n=======\nnew lines\n>>>>>>> "
                "REPLACE\nEach SEARCH text must occur in the file exactly once, "
                "spaces included. Either all blocks are applied or none."
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {
                        "type": "string",
                        "description": "Path of a file, absolute or relative to the workspace.",
                        "minLength": 1,
                    },
                    "content": {
                        "type": "string",
                        "description": "The SEARCH/REPLACE blocks.",
                        "minLength": 1,
                    },
                },
                "required": ["path", "content"],
                "additionalProperties": False,
            },
        },
    },
    "grep": {
        "type": "function",
        "function": {
            "name": "grep",
            "description": (
                "Search files for a regular expression (ripgrep). Ignored files "
                "are left out by default."
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    "pattern": {
                        "type": "string",
                        "description": "The regular expression.",
                        "minLength": 1,
                    },
                    "path": {
                        "type": "string",
                        "description": 'File or folder to search. Default ".", the workspace.',
                        "minLength": 1,
                    },
                    "max_matches": {
                        "type": "integer",
                        "minimum": 1,
                        "description": "Matches to return at most. Default 100.",
                    },
                    "use_default_ignore": {
                        "type": "boolean",
                        "description": "Leave out what .gitignore and the like name. Default true.",
                    },
                },
                "required": ["pattern"],
                "additionalProperties": False,
            },
        },
    },
    "todo": {
        "type": "function",
        "function": {
            "name": "todo",
            "description": (
                "Keep a list of what is to be done. `write` replaces the whole "
                "list, `read` returns it."
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    "action": {
                        "type": "string",
                        "enum": ["read", "write"],
                        "description": "What to do.",
                    },
                    "todos": {
                        "type": "array",
                        "maxItems": 100,
                        "description": "The new list, for write.",
                        "items": {
                            "type": "object",
                            "properties": {
                                "id": {
                                    "type": "string",
                                    "description": "A name for the entry, unique in the list.",
                                    "minLength": 1,
                                },
                                "content": {
                                    "type": "string",
                                    "description": "What is to be done.",
                                },
                                "status": {
                                    "type": "string",
                                    "enum": ["pending", "in_progress", "completed", "cancelled"],
                                    "description": "Default pending.",
                                },
                                "priority": {
                                    "type": "string",
                                    "enum": ["low", "medium", "high"],
                                    "description": "Default medium.",
                                },
                            },
                            "required": ["id", "content"],
                            "additionalProperties": False,
                        },
                    },
                },
                "required": ["action"],
                "additionalProperties": False,
            },
        },
    },
    "finish": {
        "type": "function",
        "function": {
            "name": "finish",
            "description": (
                "End the task. Call it once the goal is reached, or when it cannot "
                "be reached, and say so. The state of the workspace becomes the "
                "result."
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    "summary": {
                        "type": "string",
                        "description": "What was done and what is left, for the person who reads it.",
                        "minLength": 1,
                    },
                    "result": {
                        "type": "object",
                        "description": "The answer as data, where the goal asks for one.",
                        "additionalProperties": True,
                    },
                },
                "required": ["summary"],
                "additionalProperties": False,
            },
        },
    },
}
"""By name, as OpenAI's chat completions want them."""
