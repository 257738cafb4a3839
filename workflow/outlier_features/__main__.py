"""python -m outlier_features: see `cli`."""

from outlier_features.cli import main
from outlier_features.logs import one_line_errors

with one_line_errors():
    main()
