"""Tables of a store, and how an older file is brought to them.

Answers stand apart from what was made of them: an outcome belongs to an answer and to a scorer,
so that a corrected metric never asks a model again.
"""

from __future__ import annotations

from typing import Final

FORMAT: Final = 4
APPLICATION_ID: Final = 0x6C6B7631

TABLES: Final = (
    # What answers depend on.
    """CREATE TABLE configurations (
        key TEXT PRIMARY KEY, model TEXT NOT NULL, fingerprint TEXT NOT NULL,
        method TEXT NOT NULL, parameters TEXT NOT NULL, task TEXT NOT NULL,
        task_fingerprint TEXT NOT NULL, protocol TEXT NOT NULL,
        seed INTEGER NOT NULL, max_new_tokens INTEGER NOT NULL, dtype TEXT NOT NULL,
        attention TEXT NOT NULL, device TEXT NOT NULL, revision TEXT NOT NULL,
        versions TEXT NOT NULL, source TEXT NOT NULL)""",
    """CREATE TABLE answers (
        key TEXT NOT NULL REFERENCES configurations (key), item INTEGER NOT NULL,
        identity TEXT NOT NULL, picture TEXT NOT NULL, question TEXT NOT NULL,
        answer TEXT NOT NULL, kv_bytes INTEGER NOT NULL, full_kv_bytes INTEGER NOT NULL,
        requested_retention REAL, achieved_retention REAL NOT NULL, token_layers INTEGER NOT NULL,
        full_token_layers INTEGER NOT NULL, generated_tokens INTEGER NOT NULL,
        seconds REAL NOT NULL, warnings TEXT NOT NULL, facts TEXT NOT NULL,
        PRIMARY KEY (key, item))""",
    # What scores answers: a metric, its code and libraries, and the right answers.
    """CREATE TABLE scorers (
        number INTEGER PRIMARY KEY, scorer TEXT NOT NULL UNIQUE, metric TEXT NOT NULL,
        truth TEXT NOT NULL, code TEXT NOT NULL, libraries TEXT NOT NULL)""",
    """CREATE TABLE outcomes (
        key TEXT NOT NULL, item INTEGER NOT NULL,
        scorer TEXT NOT NULL REFERENCES scorers (scorer), reference TEXT NOT NULL, score REAL,
        outcome TEXT NOT NULL, PRIMARY KEY (key, item, scorer),
        FOREIGN KEY (key, item) REFERENCES answers (key, item))""",
    # What a command called its methods, and how many questions it was to ask.
    """CREATE TABLE asked (
        key TEXT NOT NULL, label TEXT NOT NULL, protocol TEXT NOT NULL, task TEXT NOT NULL,
        questions INTEGER NOT NULL, PRIMARY KEY (key, label))""",
    # Methods that refused a model, a prompt or a protocol, and why.
    "CREATE TABLE refusals (key TEXT PRIMARY KEY, reason TEXT NOT NULL)",
    # What is known of models without loading them, by the files and settings they come from.
    "CREATE TABLE models (identity TEXT PRIMARY KEY, description TEXT NOT NULL)",
    # Whole tables of studies.
    """CREATE TABLE frames (
        key TEXT PRIMARY KEY, study TEXT NOT NULL, configuration TEXT NOT NULL,
        content TEXT NOT NULL)""",
)

DECISIONS: Final = """CREATE TABLE IF NOT EXISTS decisions (
    key TEXT NOT NULL, item INTEGER NOT NULL, tokens TEXT NOT NULL, gap REAL NOT NULL,
    PRIMARY KEY (key, item), FOREIGN KEY (key, item) REFERENCES answers (key, item))"""
"""How sure each answer was; stands only in stores whose rows ship."""

_FROM_FORMAT_2: Final = (
    "ALTER TABLE answers RENAME TO old_answers",
    "ALTER TABLE configurations RENAME TO old_configurations",
    *TABLES[:-1],
    """INSERT INTO configurations SELECT key, model, fingerprint, method, parameters, task,
        task_fingerprint, protocol, seed, max_new_tokens, dtype, attention, device, revision,
        versions, '{}' FROM old_configurations""",
    """INSERT INTO answers SELECT key, item, identity, identity, question, answer, kv_bytes,
        full_kv_bytes, requested_retention, achieved_retention, token_layers, full_token_layers,
        generated_tokens, seconds, warnings, '{}' FROM old_answers""",
    # Format 2 scored by the code that asked, which is part of the configuration.
    """INSERT INTO scorers (scorer, metric, truth, code, libraries)
        SELECT DISTINCT 'format 2: ' || metric || ' ' || revision || ' ' || task_fingerprint,
        metric, task_fingerprint, revision, '{}' FROM old_configurations""",
    """INSERT INTO outcomes SELECT key, item,
        'format 2: ' || metric || ' ' || revision || ' ' || task_fingerprint, reference, score,
        '{}' FROM old_answers JOIN old_configurations USING (key)""",
    """INSERT INTO asked SELECT key, method, protocol, task, count(*) FROM old_answers
        JOIN old_configurations USING (key) GROUP BY key""",
    "DROP TABLE old_answers",
    "DROP TABLE old_configurations",
)

OLDER: Final = {
    2: _FROM_FORMAT_2,
    3: ("ALTER TABLE answers ADD COLUMN facts TEXT NOT NULL DEFAULT '{}'",),
}
"""What brings a file of an older format up to date."""
