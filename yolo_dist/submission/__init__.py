"""Commands of this package as jobs on a Ray cluster that is elsewhere."""

from yolo_dist.submission.jobs import Job, JobServer
from yolo_dist.submission.plan import Submission, plan_submission

__all__ = ["Job", "JobServer", "Submission", "plan_submission"]
