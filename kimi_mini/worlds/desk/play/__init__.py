"""How the expert works at the desk (`clerk`), and exercise sheets of its work (`sheets`)."""
