"""`cortexd.http_server` with little patience for clients that do not read."""

from cortexd.http_server import main
from cortexd.http_worker import PatientProtocol

STALLED_S = 0.2

if __name__ == "__main__":
    PatientProtocol.stalled_s = STALLED_S
    main()
