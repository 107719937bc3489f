"""Messages, calls, results, answer: conversations, policies, the loop, traces, a terminal."""
