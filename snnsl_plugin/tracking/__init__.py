"""The run journal, local first, and the process that projects it to MLflow.

Training imports `journal`, `launch` and `status`, which know nothing of MLflow. Only `connection` and
`projection` import mlflow, and only the sender, a process of its own, imports those.
"""
