"""Knowledge bases: from an object in a store to passages that a question finds."""
