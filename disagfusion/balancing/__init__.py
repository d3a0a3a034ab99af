"""The balancer of the embedded system: a process beside the supervisor.

It asks the gateway what there is to do, decides, and has the supervisor and the stage services
carry it out. The rules are in `disagfusion.scheduling`.
"""
