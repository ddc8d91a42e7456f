"""Checks that live in support modules explain themselves as those of tests do."""

import pytest

pytest.register_assert_rewrite("inference_watch", "live_fleet")
