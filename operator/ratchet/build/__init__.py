"""From a task's configuration to the objects of its sandbox, and from a pod to a sentence.

Pure: no I/O, no clock, no randomness; manifests are plain dicts.

    generation     which sandbox of which task: name, labels, owner
    pod            the pod, with resources and paths
    secret         what only its server mounts
    files          the start files
    networkpolicy  who may connect
    podstate       what a pod's object says about the sandbox
    settings       what the installation decides
"""
