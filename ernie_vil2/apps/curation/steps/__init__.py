"""Steps of a curation, one file each; `curation/step.py` names them."""
