"""The generated data set: scenes, their pictures and their captions."""
