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
CONFIRMATION = 32  # at the head of a reply's plaintext: the hop proves that it holds its onion secrets
REPLAY_TAG = 16  # of SHA-256 over a record
ONION_MLKEM_KEY = 1184  # ML-KEM-768's encapsulation key
ONION_MLKEM_CIPHERTEXT = 1088
TICKET = 16  # HMAC-SHA256, cut: a forger gets one guess per build at the final hop's rate limit

MAX_CONTROL_MESSAGE = 65_536
MAX_HANDSHAKE_MESSAGE = 4_096
MAX_RECORD = 4_096  # any record a relay stores
REACH_RECORD = 3_325
REACH_PLAINTEXT = 3_072
VOUCHER = 145
MAX_VERSIONS = 16  # protocol versions that a HELLO or descriptor lists
MAX_ENDPOINTS = 2  # of a descriptor; each holds an address of either family
MAX_FAMILY = 8  # relay ids in a descriptor: each costs its readers a point check (35 us)
DHT_SLOTS = 4  # positions an address group may choose from

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
BLIND_PERIOD = 24 * 3600  # the life of a blinded node key
BLIND_PERIOD_START = 12 * 3600  # periods change at 12:00 UTC for everybody: an offset of its own would mark a node

MIN_HOPS = 3  # relays, the final included, the target not
DEFAULT_HOPS = 4
MAX_HOPS = 5  # the target takes the sixth slot

GROUPS_FULL = 20  # address groups of relays from which on every client enforces every path rule
GROUPS_REDUCED = 8  # below GROUPS_FULL: subnets instead of groups, no sides, no ages
GROUPS_TINY = 4  # below GROUPS_REDUCED: distinct relays only; below this no private connection
GROUP_CAP = 0.02  # of the total weight: 50 groups are needed before one may be preferred to another
GUARD_AGE = 8 * 24 * 3600  # known for this long; a guard sees its clients' addresses for months
VANGUARD_AGE = 3 * 24 * 3600
MIDDLE_AGE = 24 * 3600
FIRST_SEEN_KEPT = 20 * 24 * 3600  # how long an absent relay keeps its age
FOUNDING_SPAN = 3600  # relays met within this of the first one have no age that we could know: they count as old
VANGUARDS = 3
VANGUARDS_REDUCED = 2
REACH_EARLY = 3 * 3600  # the next period's record is published at a random time within this before the change
REACH_KEPT = 3 * 3600  # records of the last period are taken and served for this long after its end

INITIAL_SESSION_WINDOW = 256 * 1024  # before any MAX_DATA; SESSIONS_PER_TARGET of them are SESSION_MEMORY
INITIAL_STREAM_WINDOW = 16 * 1024  # before any MAX_STREAM_DATA; STREAMS_PER_SESSION of them are SESSION_WINDOW
STREAMS_PER_SESSION = 256  # open at once, and opened by the same end
STREAM_METADATA = 1024  # STREAM_OPEN fits a small packet together with OPEN_SESSION

# Implementation: links

READ_BUFFER = 256 * 1024  # handled in one pass: 64 KiB costs a tenth more CPU, more brings nothing
READS_PER_WAKEUP = 4  # then other links get their turn
SEND_QUEUE = 512 * 1024  # handed to the transport per link; the rest waits in per-circuit queues
SEND_QUEUE_HARD = 1024 * 1024  # control traffic a peer provokes but does not read closes the link
SEND_CHUNK = 128 * 1024  # one send; ssl reports it sent only when all of it is, so more would hide what has left
LISTEN_BACKLOG = 512  # connections the kernel completes ahead of accept
ACCEPTS_PER_WAKEUP = 64  # then links get their turn
ACCEPT_PAUSE = 1.0  # when the process is out of descriptors: closing links needs time, and accepting would spin
MAX_INVITE = 512  # characters of text; an id and both addresses with all transports come to about 300
DIAL_TIMEOUT = 1.5
LINK_HANDSHAKE_TIMEOUT = 10.0  # for TLS on the accepting side, and again for HELLO and AUTH at either end
HALF_OPEN_LINKS = 256  # TLS handshakes at once at one listener; one more, and the oldest ends
LINKS_PER_ADDRESS_GROUP = 256
LINK_UNUSED = 600.0  # a link that a relay dialled for others is closed when no circuit was seen on it for this long
PING_INTERVAL_NAT = 15.0  # attachments: real NATs forget a mapping after 30 s
PING_INTERVAL = 60.0
LINK_DEAD_AFTER = 45.0  # silence on a link that is pinged every 15 s
PING_ANSWER = 30.0  # an unanswered PING on the others
TOMBSTONE = 60.0  # how long RELAY for a destroyed circuit is dropped silently
UNKNOWN_CIRCUIT_LIMIT = 100  # in 10 s, then the link closes
UNKNOWN_CIRCUIT_WINDOW = 10.0
TOMBSTONES_PER_LINK = 16_384  # four times the circuits; beyond it the oldest is forgotten and its id is unknown again

# Implementation: circuits

CIRCUITS_PER_LINK = 4096
CIRCUITS_PER_CLIENT_LINK = 256
CIRCUITS = 32_768  # of the whole process, at about 30 KB each
HALF_OPEN_BUILDS = 512
DIALS_AT_ONCE = 128  # circuits that wait for a link to be dialled: each may cost a socket, and clients name the address
CLIENT_HALF_OPEN_BUILDS = 16  # over one client's link: its burst, and not more at once
HALF_OPEN_BUILDS_PER_LINK = 128  # so that no single link fills the table
BUILD_RATE_CLIENT_LINK = 3.0  # builds a second, and burst: a person's browser, not a flood
BUILD_BURST_CLIENT_LINK = 15
BUILD_ACK_MIN = 1.5  # max(this, BUILD_ACK_BASE + 4 link round trips)
BUILD_ACK_BASE = 0.5
BUILT_WAIT = 20.0  # for the rest of the path, counted from BUILD_ACK; equal at every hop, so it tells no position
BUILD_TIMEOUT = 5.0  # the client's, until 20 builds are known
BUILD_TIMEOUT_FLOOR = 2.0
BUILD_TIMEOUT_CAP = 20.0
BUILDS_KNOWN = 20  # from then on the client's timeout is the 80th percentile of what it saw
BUILD_HISTORY = 200
ECHO_SAMPLES = 11  # per hop: a median that one slow moment does not move
ECHO_TIMEOUT = 5.0
ANSWER_TIMEOUT = 5.0  # of a question through a circuit
QUESTION_LIFE = 60.0  # of a circuit that ends at a relay: questions are asked at once
HALF_BUILT_LIFE = 10.0  # an untouched circuit that reached only part of its path
REPLAY_TAGS_PER_WINDOW = 500_000
CREDIT_BATCH_DIVISOR = 8  # grant when window/8, or one large cell, has left its queue
WINDOW_FLOOR = 32 * 1024  # for a circuit whose next hop does not drain
WINDOW_GROWTH_SPAN = 0.02  # a window used up within this, or a round trip, is too small; it covers scheduling delays
WINDOW_SHRINK_SPAN = 1.0  # a window still half queued after this long is too large
END_QUEUE = 64 * 1024  # sealed cells that wait at an end of a circuit before its session is told to stop
END_QUEUE_HARD = 256 * 1024  # answers a peer provokes but does not take destroy the circuit
QUEUE_MEMORY = 256 * 1024 * 1024  # all queues of the process; over 90 % the oldest dies, over 95 % builds are refused
QUEUE_FULL = 0.90  # of QUEUE_MEMORY: circuits die, until the queues are down to the next line
QUEUE_RELIEVED = 0.85  # of QUEUE_MEMORY; the gap keeps a flood from making every pass look for a victim
QUEUE_REFUSE = 0.95  # of QUEUE_MEMORY: no new circuits
MESSAGE_LIMIT = 65_536  # the longest message made of several relay cells

# Implementation: attachments, records, directory

ATTACHMENTS = 3
MAX_FINALS = 6
ATTACHMENTS_PER_ADDRESS_GROUP = 8
ATTACHMENT_LIFE = (12 * 3600, 24 * 3600)  # random in between, so finals rotate
RING_RATE = 2.0  # incoming builds a second for one handle, and burst
RING_BURST = 20
REDIAL_FIRST = 0.5  # a relay's pauses between dials of a seed: doubling, up to
REDIAL_LAST = 30.0
RELAY_UPKEEP = 60.0  # how often a relay looks at the wall clock for what is due
DESCRIPTOR_REPUBLISH = 12 * 3600  # under half its life, so that one missed publication is no loss
DIR_PUT_RATE = 20.0  # descriptors a second taken over one link, and burst: a neighbour that starts brings everybody's
DIR_PUT_BURST = 400
DIR_GET_RATE = 5.0  # pages of the relay table a second over one link: a question of 10 bytes costs 64 KiB
DIR_GET_BURST = 300  # a whole table is at most 256 pages
PUTS_PER_CIRCUIT = 4  # an honest publisher needs one; more would make one build pay for many verifications
LOOKUPS_AT_ONCE = 2  # storers asked side by side: one alone may keep back the newest record
PATHS_TRIED = 6  # for one circuit, before it is given up: every final hop once
TABLE_REFRESH = 600.0  # how often a running node looks for new relays, and for the new keys of those it knows
TABLE_STALE = 60.0  # a relay table no older than this is not fetched anew when a circuit fails
TABLE_FETCH = 60.0  # for the whole table from one relay: MAX_RELAYS at 4 Mbit/s take half of it
REATTACH_WITHIN = 30.0
REPUBLISH = 3600.0  # +-20 %
REACH_STORERS = 4  # relays per replica key that hold a reach record, until the DHT issue
REACH_REPLICAS = 2
STORE_BYTES = 64 * 1024 * 1024
MAX_RELAYS = 10_000  # the design's ceiling for a complete table
DESCRIPTOR_LIMIT = 4_096
STORED_OVERHEAD = 512  # what holding a record costs beside its bytes: keys, index entries, objects
ATTACHMENTS_HELD = 4_096  # by one final hop; each is a link with its buffers
ATTACH_TIMEOUT = 10.0  # from the dial to the voucher, and for a fresh voucher
VOUCHER_FRESH = 60.0  # a voucher no older than this is published as it is
PUBLISH_GATHER = 3.0  # how long the first attachment waits for the others before a record is published
REATTACH_RETRY = 5.0  # between looks for a final hop while there is none to take
FINAL_AVOIDED = 600.0  # how long a target does not try a final hop again that refused or was lost
RETIRE_BEFORE = 5400  # an attachment's replacement is made this long before its end: more than 1.2 REPUBLISH
PUBLISH_PAUSE = 10.0  # between publications; doubling up to REPUBLISH while no storer takes one
PUBLISH_TRIES = 4  # for one publication; three starts within one REVISION_STALE_STEP get past each other's records
REVISION_SKIP = 256  # a publisher that restarted and is told its record is stale skips so many; twice that each time
REVISION_SKIP_MOST = 65_535
REVISION_STALE_STEP = 60  # and counts from the minute, not from the ten; finer would show the error of its clock

# Implementation: guards and paths

GUARDS_PRIMARY = 3  # the first usable one of them is used
GUARDS_SAMPLED = 20  # or a fifth of all candidates; whoever blocks our guards must not make us walk through all of them
GUARDS_SAMPLED_SHARE = 0.2
GUARDS_SAMPLED_MOST = 60
GUARD_BACKDATED = 0.1  # of a guard's life: its dates are set back by up to this, so that none tells when we began
GUARD_LIFE = 120 * 24 * 3600
GUARD_CONFIRMED_LIFE = 60 * 24 * 3600
GUARD_UNLISTED = 20 * 24 * 3600  # then an unlisted guard is given up
GUARD_RETRY = ((6 * 3600, 600), (4 * 24 * 3600, 5400), (7 * 24 * 3600, 14_400))  # (down for less than, retry after)
GUARD_RETRY_LAST = 9 * 3600
GUARD_RETRY_OTHERS = ((6 * 3600, 3600), (4 * 24 * 3600, 14_400), (7 * 24 * 3600, 64_800))  # beyond the first three
GUARD_RETRY_OTHERS_LAST = 36 * 3600
NETWORK_DOWN_AFTER = 600  # no link for this long: our own network is down, not the guards
NETWORK_DOWN_RETRY = 10  # how soon a guard is tried again while that may be so
VANGUARD_LIFE = (24 * 3600, 12 * 24 * 3600)  # the larger of two uniform draws
VANGUARDS_MOST = 6  # drawn in addition while others cannot be used
VANGUARD_AVOIDED = 600  # how long a vanguard is passed over that its guard could not reach
CLOCK_SAMPLES = 3  # relays whose clocks are needed before ours is judged by them

# Implementation: sessions

SESSION_WINDOW = 4 * 1024 * 1024  # bytes in flight of a whole session
STREAM_WINDOW = 2 * 1024 * 1024  # at most; streams share SESSION_WINDOW
STREAM_SEND_BUFFER = 256 * 1024  # what a writer may have queued: a dozen large packets, so that they get filled
SESSION_CONTROL_FRAMES = (
    8192  # waiting to be sent: 8 for each stream that can exist; a peer that provokes more is dropped
)
SESSIONS_PER_TARGET = 256
SESSION_MEMORY = 64 * 1024 * 1024
SERVICE_CONNECT_TIMEOUT = 10.0  # to the TCP service behind a port
SILENT_CIRCUITS = 64  # at a target, without a session: they must not take the places of SESSIONS_PER_TARGET
SESSION_UNUSED = 60.0  # a session that never opened a stream, and a circuit to a target without a session
SESSION_CLOSE_TIMEOUT = 5.0  # for streams to drain before CLOSE, and again for the peer to end the circuit
CIRCUIT_IDLE = 30 * 60.0  # no stream open

# Implementation: the home folder

KEY_FILE = 1024  # one line of text; anything longer is another file
NETWORK_FILE = 64 * 1024  # room for SEEDS of the longest invites
NETWORK_NAME = 64  # characters
SEEDS = 64
GUARD_FILE = 256 * 1024  # 60 sampled guards at most, a few hundred bytes each
TABLE_FILE = MAX_RELAYS * (DESCRIPTOR_LIMIT + 64)  # every descriptor, and what is remembered about it

# Implementation: applications and local networks

HTTP_HEAD = 16 * 1024  # a request's or answer's first lines; browsers send 1-2 KiB
HTTP_HEAD_TIMEOUT = 30.0  # also how long a connection may idle between two requests
FILE_CHUNK = 256 * 1024  # read from disk at once when a folder is served
LIFELINE_GRACE = 2.0  # from the parent's end to a child's hard exit: time to close links, not to finish transfers
CHILD_READY = 30.0  # until a child process reports; 10 of them share the start of a small machine
CHILD_STOP = 3.0  # from SIGTERM to SIGKILL
CHILD_EVENT_LINE = 256 * 1024  # the longest event a child may print
LOCAL_PORTS = (20_000, 32_000)  # below the ports that Linux and macOS take for outgoing connections
LEFTOVER_AGE = 60.0  # an unlocked folder older than this belongs to a run that was killed
DEMO_RELAYS = 8
DEMO_SEEDS = 3
TESTNET_RELAYS = 50  # the most that `testnet up` starts: each is a Python process of some 50 MB
TESTNET_STATE_FILE = 64 * 1024  # what is written of a running test network; 50 relays take 12 KiB
TESTNET_STOP = 10.0  # `testnet down` waits this long: CHILD_STOP, and what a busy machine adds
TESTNET_POLL = 0.05  # how often it looks meanwhile
DEMO_BYTES = 20_000_000
PROGRESS_EVERY = 0.1  # how often a transfer reports
PING_EVERY = 1.0  # `circuit --hold`, and `ping`
PING_EVERY_LEAST = 0.1  # a faster `ping` would measure its own queue
PING_KEPT = 10_000  # echoes a hop whose times `ping` keeps: almost three hours of them
LOCAL_CONNECTIONS = 512  # of programs, at one port here; a process usually gets 1,024 descriptors
LOCAL_OPEN = 60.0  # from a program's wish to its stream; every path has been tried long before
PROXY_NEGOTIATION = 10.0  # until a program has said what it wants; it is on this machine
PROXY_CHUNK = 4096  # read at once meanwhile
PROXY_LINGER = 1.0  # for a program to read that it is refused, before the connection is gone
