/*
 * The wire between server.c and client.c: fixed binary frames, little-endian, over TCP. See README.md.
 *
 * Each reply proves three things: the connection is the same (id and sequence), the server's memory of it is the same
 * (the check word is a chain over all requests of the connection, kept only in server memory), and who answered.
 */
#ifndef PHAUL_TARGET_PROTOCOL_H
#define PHAUL_TARGET_PROTOCOL_H

#include "common.h"

#define PROTOCOL_MAGIC 0x31485450u /* "PTH1" */

enum protocol_op { OP_ECHO = 1, OP_VERIFY = 2, OP_STATS = 3 };

/** Bits of the reply's status. */
enum protocol_status {
  STATUS_LOST = 1,      /* the sequence jumped forward: requests were lost */
  STATUS_REPEATED = 2,  /* the sequence went back: a request was doubled or out of order */
  STATUS_BAD_FRAME = 4, /* magic or check of the request were wrong */
};

struct request {
  uint32_t magic;
  uint32_t op;
  uint64_t connection;
  uint64_t sequence; /* 1, 2, 3, ... on each connection */
  uint64_t check;    /* request_check() */
};

struct reply {
  uint32_t magic;
  uint32_t op;
  uint64_t connection;
  uint64_t sequence;
  uint64_t check; /* chain_next() over all requests of this connection */
  uint64_t value; /* VERIFY: bad pages; STATS: requests answered in all */
  uint64_t extra; /* VERIFY: pages walked; STATS: violations seen by the server */
  uint32_t status;
  uint32_t clients; /* connections open now */
  uint64_t reserved;
  char host[32]; /* zero-terminated */
};

_Static_assert(sizeof(struct request) == 32, "request frame");
_Static_assert(sizeof(struct reply) == 96, "reply frame");

static inline uint64_t request_check(const struct request *request) {
  return target_mix(request->connection ^ target_mix(request->sequence) ^ ((uint64_t)request->op << 32));
}

static inline uint64_t chain_next(uint64_t chain, const struct request *request) {
  return target_mix(chain ^ request->check);
}

#endif
