"""No test here is about time: a busy machine must not fail one."""

from hypothesis import settings

settings.register_profile("timeless", deadline=None)
settings.load_profile("timeless")
