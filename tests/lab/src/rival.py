"""One BitTorrent peer, for `lab swarm`; needs Debian's python3-libtorrent.

    rival.py make SOURCE TORRENT
    rival.py seed|leech ADDRESS TORRENT FOLDER WORDS

A peer says lines of JSON and hears lines: {"ready"}; then the addresses of the peers that it is to
connect to, in one line, and it begins; {"bytes"} from time to time, {"complete": true} when it has
and has verified everything. It ends when its input does.

WORDS, joined by commas, or `-`: `tcp` (no uTP), `super` (the seeder is one that super-seeds).
"""

import json
import os
import select
import sys

import libtorrent as lt

PORT = 6881
LOOK_EVERY_S = 0.1
TELL_EVERY = 5
PIECE_BYTES = 64 * 1024

# No limits, nothing that looks for peers elsewhere, slots for all; room for what comes by uTP while
# the process is busy. The rest is what libtorrent comes with.
SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "upload_rate_limit": 0,
    "download_rate_limit": 0,
    "unchoke_slots_limit": 64,
    "connections_limit": 200,
    "connection_speed": 200,
    "recv_socket_buffer_size": 4 * 1024 * 1024,
    "alert_mask": 0,
}


def say(**words):
    print(json.dumps(words), flush=True)


def make(source, torrent):
    files = lt.file_storage()
    lt.add_files(files, source)
    made = lt.create_torrent(files, piece_size=PIECE_BYTES, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(os.path.abspath(source)))
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))


def peer(role, address, torrent, folder, words):
    settings = {**SETTINGS, "listen_interfaces": f"{address}:{PORT}"}
    if "tcp" in words:
        settings |= {"enable_incoming_utp": False, "enable_outgoing_utp": False}
    session = lt.session(settings)
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = folder
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if role == "seed":
        params.flags |= lt.torrent_flags.seed_mode
        if "super" in words:
            params.flags |= lt.torrent_flags.super_seeding
    handle = session.add_torrent(params)
    while handle.status().state in (
        lt.torrent_status.checking_files,
        lt.torrent_status.checking_resume_data,
    ):
        select.select([], [], [], LOOK_EVERY_S)
    say(ready=True)
    for other in sys.stdin.readline().split():
        handle.connect_peer((other, PORT))
    watch(handle)


def watch(handle):
    looks, complete = 0, False
    while not select.select([sys.stdin], [], [], LOOK_EVERY_S)[0]:
        if complete:
            continue
        status = handle.status()
        looks += 1
        if looks % TELL_EVERY == 0 or status.is_seeding:
            say(bytes=status.total_wanted_done, peers=status.num_peers)
        if status.is_seeding:
            complete = True
            say(complete=True)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    else:
        peer(*sys.argv[1:])
