"""One run in words: what was asked, with what it ran, what its evaluations found. Needs no torch."""

from __future__ import annotations

from clvr_bench.groups import ARROW, label, transferred_to
from clvr_bench.records import EvaluationRecord, Run


def run_facts(run: Run) -> list[tuple[str, str]]:
    """Return what a run's record says of it, by what it is about."""
    record = run.pretraining
    identity, provenance = record.identity, record.provenance
    named = {
        kind: f"{part['name']} (version {part['version']}) {_options(part['options'])}"
        for kind in ("pretext_task", "encoder", "dataset")
        if (part := identity[kind])
    }
    chain = " + ".join(f"{link['name']} {_options(link['options'])}" for link in identity["augmentation"])
    return [
        ("status", f"{record.status} {record.reason}".strip()),
        *named.items(),
        ("augmentation", chain or "none"),
        ("recipe", _options(identity["recipe"] or {})),
        ("budget", _options(identity["budget"] or {})),
        ("seed", str(identity["seed"])),
        ("precision", identity["precision"]),
        ("compute", _options(record.compute)),
        ("hardware", f"{provenance.get('hardware')} ({provenance.get('device')}, {provenance.get('threads')} threads)"),
        ("finished", str(provenance.get("finished"))),
        ("libraries", _options(provenance.get("libraries", {}))),
    ]


def judgements(run: Run) -> list[EvaluationRecord]:
    """Return a run's evaluations by name, those on other data than it was pretrained on last."""
    return sorted(run.evaluations, key=lambda record: (bool(transferred_to(record)), evaluation_name(record)))


def evaluation_name(evaluation: EvaluationRecord) -> str:
    """Name an evaluation with its options, and with the data that it judges on where they are not the run's own."""
    target = transferred_to(evaluation)
    if target is None:
        return label(evaluation)
    options = _options(evaluation.details.get("transfer", {}).get("options_shown", {}))
    return f"{label(evaluation)}{ARROW}{target['name']}" + (f" ({options})" if options else "")


def scores_text(evaluation: EvaluationRecord) -> str:
    """Write what an evaluation found, or why it failed."""
    scores = (f"{metric} {value:.4g}" for metric, value in evaluation.metrics.items())
    return evaluation.error or ", ".join(scores)


def _options(options: object) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) if isinstance(options, dict) else ""
