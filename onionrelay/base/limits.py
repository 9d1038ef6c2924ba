"""Every number of the protocol and every limit of this implementation, each with its reason.

Sizes in bytes, times in seconds. `specs/09-limits.md` explains the ones a peer can observe.
"""

# Specification: a change here is a change of the protocol

PROTOCOL_VERSION = 1
ALPN = "onionrelay/1"

SMALL_CELL = 1112  # fits one minimum QUIC packet
LARGE_CELL = 16384  # exactly one TLS record
CELL_HEADER = 8
SMALL_BODY = SMALL_CELL - CELL_HEADER  # 1104
LARGE_BODY = LARGE_CELL - CELL_HEADER  # 16376
TAG = 16  # X_L: the left half of a relay body, where the end layer's secret N stands
PAYLOAD_HEADER = 8
SMALL_DATA = SMALL_BODY - TAG - PAYLOAD_HEADER  # 1080
LARGE_DATA = LARGE_BODY - TAG - PAYLOAD_HEADER  # 16352

SLOTS = 6  # guard, vanguard, middle, final, target, and one spare
RECORD = 1288  # X 32 | ML-KEM ct 1088 | plaintext 152 | tag 16
RECORD_PLAINTEXT = 152
BUILD = SLOTS * RECORD  # 7728, exactly 7 small bodies
BUILD_CELLS = BUILD // SMALL_BODY
REPLY_SLOT = 184  # Y 32 | plaintext 136 | tag 16
REPLY_PLAINTEXT = 136
BUILT = SLOTS * REPLY_SLOT  # 1104, exactly 1 small body
LAYER_SEED = 112  # K 32 | U 32 | S 32 | N 16

MAX_CONTROL_MESSAGE = 65_536
MAX_HANDSHAKE_MESSAGE = 4_096
MAX_RECORD = 4_096  # any record a relay stores
REACH_RECORD = 3_325
REACH_PLAINTEXT = 3_072
VOUCHER = 145

INITIAL_ALLOWANCE = 128 * 1024  # per circuit, direction and link; never negotiated
MAX_ALLOWANCE = 4 * 1024 * 1024  # a credit beyond it is ignored
MAX_CELLS_PER_CIRCUIT = 1 << 28  # the bound of the cell layer's security argument

TIME_WINDOW = 600  # build records and HELLO carry unix // 600
ONION_KEY_PERIOD = 24 * 3600
ONION_KEY_ACCEPTED = 48 * 3600
ONION_KEY_ERASED = 48 * 3600 + 600
SIGNING_CERT_LIFE = 30 * 24 * 3600
SIGNING_CERT_RENEW = 20 * 24 * 3600
VOUCHER_LIFE = 3 * 3600
DESCRIPTOR_LIFE = 26 * 3600
REACH_LIFE = 3 * 3600
CLOCK_SKEW_REFUSED = 20 * 60  # a local clock further off than this builds no circuits
CIRCUIT_MAX_LIFE = 6 * 3600

MIN_HOPS = 3  # relays, the final included, the target not
DEFAULT_HOPS = 4
MAX_HOPS = 5  # the target takes the sixth slot

# Implementation: links

READ_BUFFER = 256 * 1024  # one recv_into; 64 KiB halves throughput, more brings nothing
READS_PER_WAKEUP = 4  # then other links get their turn
SEND_QUEUE = 512 * 1024  # handed to the transport per link; the rest waits in per-circuit queues
SEND_QUEUE_HARD = 1024 * 1024  # control traffic a peer provokes but does not read closes the link
DIAL_TIMEOUT = 1.5
LINK_HANDSHAKE_TIMEOUT = 10.0  # TLS and HELLO together, on the accepting side
HALF_OPEN_LINKS = 256
LINKS_PER_ADDRESS_GROUP = 256
PING_INTERVAL_NAT = 15.0  # attachments: real NATs forget a mapping after 30 s
PING_INTERVAL = 60.0
LINK_DEAD_AFTER = 45.0  # silence on a link that is pinged every 15 s
PING_ANSWER = 30.0  # an unanswered PING on the others
TOMBSTONE = 60.0  # how long RELAY for a destroyed circuit is dropped silently
UNKNOWN_CIRCUIT_LIMIT = 100  # in 10 s, then the link closes
UNKNOWN_CIRCUIT_WINDOW = 10.0

# Implementation: circuits

CIRCUITS_PER_LINK = 4096
CIRCUITS_PER_CLIENT_LINK = 256
HALF_OPEN_BUILDS = 512
BUILD_RATE_CLIENT_LINK = 3.0  # builds a second, and burst: a person's browser, not a flood
BUILD_BURST_CLIENT_LINK = 15
BUILD_ACK_MIN = 1.5  # max(this, BUILD_ACK_BASE + 4 link round trips)
BUILD_ACK_BASE = 0.5
BUILD_TIMEOUT = 5.0  # the client's, until 20 builds are known
BUILD_TIMEOUT_FLOOR = 2.0
BUILD_TIMEOUT_CAP = 20.0
HALF_BUILT_LIFE = 10.0  # an untouched circuit that reached only part of its path
REPLAY_TAGS_PER_WINDOW = 500_000
CREDIT_BATCH_DIVISOR = 8  # grant when window/8, or one large cell, has left its queue
WINDOW_FLOOR = 32 * 1024  # for a circuit whose next hop does not drain
QUEUE_MEMORY = 256 * 1024 * 1024  # all queues of the process; over 90 % the oldest dies, over 95 % builds are refused
MESSAGE_LIMIT = 65_536  # the longest message made of several relay cells

# Implementation: attachments, records, directory

ATTACHMENTS = 3
MAX_FINALS = 6
ATTACHMENTS_PER_ADDRESS_GROUP = 8
ATTACHMENT_LIFE = (12 * 3600, 24 * 3600)  # random in between, so finals rotate
RING_RATE = 2.0  # incoming builds a second for one handle, and burst
RING_BURST = 20
REATTACH_WITHIN = 30.0
REPUBLISH = 3600.0  # +-20 %
REACH_STORERS = 4  # relays per replica key that hold a reach record, until the DHT issue
REACH_REPLICAS = 2
STORE_BYTES = 64 * 1024 * 1024
MAX_RELAYS = 10_000  # the design's ceiling for a complete table
DESCRIPTOR_LIMIT = 4_096

# Implementation: sessions

SESSION_WINDOW = 4 * 1024 * 1024  # bytes in flight of a whole session
STREAM_WINDOW = 2 * 1024 * 1024
STREAMS_PER_SESSION = 256
SESSIONS_PER_TARGET = 256
SESSION_MEMORY = 64 * 1024 * 1024
SESSION_UNUSED = 60.0  # a session that never opened a stream
CIRCUIT_IDLE = 30 * 60.0
