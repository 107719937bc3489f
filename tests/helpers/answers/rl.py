"""Right and plausible wrong answers to the exercises of notebook 07."""

import numpy as np
import torch

from kimi_mini.course.exercises import rl as ex


def k2(rewards, log_ratio, tau):
    gain = rewards - rewards.mean(1, keepdim=True)
    return -2 * tau * (gain - tau * log_ratio) / rewards.numel()


def k2_with(baseline=lambda r: r.mean(1, keepdim=True), tau_factor=1.0, scale=1.0, spread=None):
    def gradient(rewards, log_ratio, tau):
        gain = rewards - baseline(rewards)
        gain = gain if spread is None else gain / spread(rewards)
        return -2 * tau * scale * (gain - tau_factor * tau * log_ratio) / rewards.numel()

    return gradient


def by_autograd(rewards, log_ratio, tau):
    """The report's formula, and no pencil."""
    x = log_ratio.clone().requires_grad_()
    loss = ((rewards - rewards.mean(1, keepdim=True) - tau * x) ** 2).mean(1).mean()
    return torch.autograd.grad(loss, x)[0]


def k25(log_ratio, advantage, attempt, low, high, tau, kept=None, pull=2.0, count=None):
    inside = (log_ratio >= -low) & (log_ratio <= high) if kept is None else kept
    each = pull * tau * log_ratio - inside * log_ratio.exp() * advantage
    return each / (len(log_ratio) if count is None else count)


def as_ppo(x, gain, attempt, low, high, tau):
    moved = ((gain > 0) & (x > high)) | ((gain < 0) & (x < -low))
    return k25(x, gain, attempt, low, high, tau, kept=~moved)


def as_grpo(x, gain, attempt, low, high, tau):
    lengths = torch.bincount(attempt)
    return k25(x, gain, attempt, low, high, tau, count=len(lengths) * lengths[attempt])


def as_cispo(x, gain, attempt, low, high, tau):
    return (2 * tau * x - x.clamp(-low, high).exp() * gain) / len(x)


def of_the_attempt(x, gain, attempt, low, high, tau):
    sums = torch.zeros(int(attempt.max()) + 1).index_add(0, attempt, x)[attempt]
    return k25(x, gain, attempt, low, high, tau, kept=(sums >= -low) & (sums <= high))


def of_the_ratio(x, gain, attempt, low, high, tau):
    return k25(x, gain, attempt, low, high, tau, kept=(x.exp() - 1 >= -low) & (x.exp() - 1 <= high))


def pull_inside(x, gain, attempt, low, high, tau):
    inside = (x >= -low) & (x <= high)
    return inside * k25(x, gain, attempt, low, high, tau)


def toggled(
    rewards,
    passed,
    written,
    t,
    m=3,
    rho=75,
    least=0.5,
    held=None,
    of=None,
    known=None,
    worth=None,
    over=torch.gt,
):
    lengths = written[passed > 0] if of is None else of(written, passed)
    budget = torch.quantile(lengths, rho / 100)
    solved = passed.mean(1, keepdim=True) >= least if known is None else known(passed)
    lost = over(written, budget) & solved
    less = rewards.clamp(max=0) if worth is None else worth(rewards)
    return torch.where(lost, less, rewards) if (t // m % 2 == 0 if held is None else held(t)) else rewards


def toggle_with(**changes):
    return lambda *arguments: toggled(*arguments, **changes)


def of_each_task(rewards, passed, written, t):
    rows = zip(rewards, passed, written)
    return torch.cat([toggled(r[None], p[None], w[None], t) for r, p, w in rows])


def reasons(question, words):
    return 0.5 * words.count("because")


def the_sum(question, words):
    a, b = question.split(" + ")
    return words[-1:] == [str(int(a) + int(b))]


def check_closed(bonus):
    return ex.check_bonus(bonus, 1.0)


def check_cap(cap):
    return ex.check_bonus(reasons, cap)


RIGHT = [
    (ex.check_k2, k2),
    (ex.check_k2, by_autograd),
    (ex.check_k2, lambda *arguments: k2(*arguments).numpy()),
    (ex.check_k25, k25),
    (ex.check_k25, lambda *arguments: k25(*arguments).tolist()),
    (ex.check_toggle, toggled),
    (check_closed, reasons),
    (check_closed, lambda question, words: np.float32(0.3 * len(words))),
    (check_closed, lambda question, words: torch.tensor(0.3 * sum(word.isdigit() for word in words))),
]

WRONG = [
    (ex.check_k2, k2_with(baseline=lambda r: r.mean()), "one baseline for all prompts"),
    (ex.check_k2, k2_with(baseline=lambda r: r.mean(0)), "runs over prompts"),
    (ex.check_k2, k2_with(baseline=lambda r: 0), "no baseline"),
    (ex.check_k2, k2_with(baseline=lambda r: (r.sum(1, keepdim=True) - r) / 4), "RLOO"),
    (ex.check_k2, k2_with(spread=lambda r: r.std(1, correction=0, keepdim=True) + 1e-6), "GRPO"),
    (ex.check_k2, k2_with(tau_factor=0), "pull towards the old policy is missing"),
    (ex.check_k2, k2_with(tau_factor=-1), "pull has the wrong sign"),
    (ex.check_k2, k2_with(scale=-1), "minimised"),
    (ex.check_k2, lambda r, x, tau: k2(r, x, tau) / (2 * tau), "as the package has it"),
    (ex.check_k2, lambda r, x, tau: k2(r, x, tau) / tau, "inner derivative"),
    (ex.check_k2, k2_with(scale=0.5), "2 of the square"),
    (ex.check_k2, k2_with(scale=3), "mean over prompts"),
    (ex.check_k2, k2_with(scale=5), "1/K"),
    (ex.check_k2, k2_with(scale=15), "is a mean, over prompts and over attempts"),
    (ex.check_k2, lambda r, x, tau: k2(r, x, tau).mean(1), "(P, K)"),
    (ex.check_k2, k2_with(scale=0.1), "not these numbers"),
    (ex.check_k25, as_ppo, "advantage's sign"),
    (ex.check_k25, as_grpo, "tokens of the whole batch"),
    (ex.check_k25, as_cispo, "CISPO"),
    (ex.check_k25, of_the_attempt, "own log-ratio"),
    (ex.check_k25, of_the_ratio, "not of the ratio"),
    (ex.check_k25, pull_inside, "only the first term is masked"),
    (ex.check_k25, lambda x, *rest: k25(x, *rest, kept=torch.ones_like(x)), "no token is masked"),
    (ex.check_k25, lambda x, *rest: k25(x, *rest, kept=x <= rest[3]), "both sides"),
    (ex.check_k25, lambda *arguments: k25(*arguments, pull=1.0), "2 of the square"),
    (ex.check_k25, lambda *arguments: k25(*arguments, pull=0.0), "pull tau (log ratio)^2 is missing"),
    (ex.check_k25, lambda *arguments: k25(*arguments, pull=-2.0), "pull has the wrong sign"),
    (ex.check_k25, lambda *arguments: -k25(*arguments), "maximises"),
    (ex.check_k25, lambda *arguments: k25(*arguments, count=1), "divide by N"),
    (
        ex.check_k25,
        lambda x, gain, attempt, low, high, tau: (2 * tau * x - ((x >= -low) & (x <= high)) * gain) / len(x),
        "ratio itself is missing",
    ),
    (ex.check_k25, lambda *arguments: k25(*arguments).sum(), "(M,)"),
    (ex.check_toggle, toggle_with(held=lambda t: t % 2 == 0), "three rounds"),
    (ex.check_toggle, toggle_with(held=lambda t: t // 3 % 2 == 1), "phase 0"),
    (ex.check_toggle, toggle_with(held=lambda t: True), "every round"),
    (ex.check_toggle, toggle_with(held=lambda t: False), "never holds"),
    (ex.check_toggle, toggle_with(of=lambda written, passed: written), "right attempts alone"),
    (ex.check_toggle, of_each_task, "one budget for the family"),
    (ex.check_toggle, toggle_with(known=lambda p: torch.ones_like(p) > 0), "seldom solved"),
    (ex.check_toggle, toggle_with(known=lambda p: p.mean(1, keepdim=True) > 0.5), "a half is enough"),
    (ex.check_toggle, toggle_with(known=lambda p: p > 0), "the task decides"),
    (ex.check_toggle, toggle_with(worth=torch.zeros_like), "forgiven"),
    (ex.check_toggle, toggle_with(worth=lambda r: r - 10), "not these numbers"),
    (ex.check_toggle, toggle_with(worth=lambda r: torch.full_like(r, -1.0)), "not less than nothing"),
    (ex.check_toggle, toggle_with(rho=0.75), "not these numbers"),
    (ex.check_toggle, toggle_with(over=torch.ge), "just the budget"),
    (check_closed, lambda question, words: 1, "the same for all attempts"),
    (check_closed, lambda question, words: words.count("sure"), "as much of it as right ones"),
    (check_closed, lambda question, words: -len(words), "as much of it as right ones"),
    (check_closed, the_sum, "not gamed"),
    (check_closed, lambda question, words: words[-1:] != [] and words[-1].isdigit(), "not gamed"),
    (check_closed, lambda question, words: float("nan"), "is nan"),
    (check_closed, lambda question, words: "much", "return one number"),
    (
        check_closed,
        lambda question, words: len(words),
        "What is a right answer worth",
    ),  # 1 at least: all alike
    (check_cap, float("inf"), "caps nothing"),
    (check_cap, 50.0, "caps nothing"),
    (check_cap, 2.0, "What is a right answer worth"),
    (check_cap, 0, "a cap is a number above 0"),
    (check_cap, True, "a cap is a number above 0"),
    (check_cap, float("nan"), "a cap is a number above 0"),
    (check_cap, "1", "return one number"),
    (check_cap, ..., "gamed: bonus"),
    (check_cap, None, "Now set my_cap"),
]
