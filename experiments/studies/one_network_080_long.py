"""The question of one_network_080 after four times the steps: is the gap of small networks one of training time?"""

from dataclasses import replace

from studies import one_network_080

STUDY = replace(one_network_080.STUDY, question="And after four times the steps?", steps=8000)
