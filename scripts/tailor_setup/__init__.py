"""Set-up of Tailor: Debian packages, pinned downloads, unpacking, llama.cpp. Needs Python 3.9 and pip, nothing else."""
