"""A short run of joint RL: tasks of three worlds (shop, repair, chain), the half solved ones more often, with PTX."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from tqdm import tqdm

from kimi_mini.agent.folder import load_agent
from kimi_mini.model.compact import int4
from kimi_mini.model.kimi import KimiMini
from kimi_mini.pipeline.plan import Run
from kimi_mini.pipeline.shared import load_checkpoint, save_checkpoint, training_pools
from kimi_mini.text.tokenizer import Tokenizer
from kimi_mini.training import averaging, sft
from kimi_mini.training.loop import load_state, save_state
from kimi_mini.training.rl import rounds as rl
from kimi_mini.training.rl.partial import Backlog


@dataclass
class Rounds:
    """What the rounds so far have measured and left unfinished; kept in the file of the state, so that they cannot
    part."""

    rounds: list[dict] = field(default_factory=list)
    backlog: list[dict] = field(default_factory=list)  # attempts that go on in the next round


def reinforce(run: Run) -> dict:
    """A short run of joint RL; saved after every round."""
    plan, config = run.plan, run.plan.rl
    model = load_checkpoint(run, "tuned")
    optimizer = replace(plan.optimizer, lr=config.lr, adamw_lr=config.adamw_lr).build(model)
    state, kept = run.folder / "reinforce.pt", Rounds()
    if state.is_file():
        kept = load_state(state, model, optimizer, Rounds)
    rounds, tokenizer = kept.rounds, Tokenizer.load()
    backlog = Backlog.restored(kept.backlog, tokenizer, config)
    with tqdm(total=config.rounds, initial=len(rounds), unit="round", leave=False, dynamic_ncols=True) as bar:

        def on_round(index: int, measured: rl.Round) -> None:
            rounds.append(asdict(measured))
            kept.backlog = backlog.saved()
            save_state(state, model, optimizer, kept)
            bar.update()
            bar.set_postfix(success=f"{measured.success:.2f}")

        ptx = sft.mixed(training_pools(run), config.ptx_tokens, plan.micro_tokens, plan.seed)
        done = [rl.Round(**one) for one in rounds]
        if not (done and rl.learned(done[-1], config)):
            rl.reinforce(model, tokenizer, optimizer, config, plan.seed, ptx, done, on_round, backlog=backlog)
    if config.int4:
        int4.round_experts(model)
    ended(run, model)
    written = sum(int(entry["tokens"] * len(entry["successes"]) * config.attempts) for entry in rounds)
    first, last = rounds[0]["success"], rounds[-1]["success"]
    families = ", ".join(dict.fromkeys(family for family, _ in config.tasks))
    summary = f"{families}: success while sampling {first:.2f} -> {last:.2f}"
    return {"tokens": written, "rounds": rounds, "summary": summary}


def ended(run: Run, model: KimiMini) -> None:
    """Save the end of the run; of a course with others to be averaged, its own end and then the mean of all."""
    if run.ends:
        save_checkpoint(run, model, "end")
        averaging.set_to_mean(model, [load_agent(end)[0].to(model.lm_head.weight.device) for end in run.ends])
    save_checkpoint(run, model, "final")
