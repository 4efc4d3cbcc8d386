"""The process of one training: one thread, and it ends with the driver that has started it.

python -m driver.worker FOLDER_OF_THE_TRAINING PROCESS_ID_OF_THE_DRIVER
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path


def end_with(driver: int) -> None:
    """A driver that was killed leaves no training behind, nor a process that the training has started."""
    while os.getppid() == driver:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    threading.Thread(target=end_with, args=(int(sys.argv[2]),), daemon=True).start()
    import torch  # takes seconds, in which the driver may end

    from driver.making import Making

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    Making(Path(sys.argv[1])).run()


if __name__ == "__main__":
    main()
