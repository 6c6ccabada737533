import sys
from tests.cluster.local import machine
if sys.argv[1]=="up":
    print(machine.up())
elif sys.argv[1]=="down":
    machine.down()
else:
    print(machine.parts_and_health())
