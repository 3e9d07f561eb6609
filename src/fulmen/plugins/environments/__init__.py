"""Where the processes of a job come from, and how they find each other."""
