"""One data set per file; the file name is the word in a recipe. Shared parts are in the underscore modules."""
