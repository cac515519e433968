/* Single connections of client.c: the connect loop, the last verification. All of them block, with time limits. */
#ifndef PHAUL_TARGET_CLIENT_CONNECT_H
#define PHAUL_TARGET_CLIENT_CONNECT_H

#include "protocol.h"

/** A connected blocking socket with TCP_NODELAY, or -1 with errno. */
int client_connect(const char *address, long port, int timeout_ms);

int client_local_port(int fd);

struct request client_request(uint32_t op, uint64_t connection, uint64_t sequence);

/** The number of bad pages the server counts in its memory, or -1 if it could not be asked. */
long client_ask_for_bad_pages(const char *address, long port);

/** What became of the connections of the connect loop: `longest` in ns, from connect() to the reply. */
struct connect_loop_result {
  unsigned long ok;
  unsigned long failed;
  uint64_t longest;
};

/** Starts a thread that connects, asks once, closes, every 5 ms. */
void connect_loop_start(const char *address, long port);

/** Ends it after the connection under way; zeros if it was never started. */
struct connect_loop_result connect_loop_stop(void);

#endif
