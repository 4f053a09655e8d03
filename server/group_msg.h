/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The messages of the group, as structs and as bytes: a header that every
 * message carries (H5: lineage, view, sender and its incarnation) and one
 * body a type.  Byte by byte, little-endian, nothing trusted: a message that
 * decodes has all its counts and strings in range.  Pure; any thread.
 */
#ifndef CRG_GROUP_MSG_H
#define CRG_GROUP_MSG_H

#include "server/group.h"

#define MSG_MAGIC 0x47475243u /* "CRGG" */
#define MSG_VERSION 5
#define MSG_EBADMSG STATE_EBADMSG

enum msg_type {
  MSG_ANSWER = 1,  /* C2: my stamp and what I promised */
  MSG_START,       /* C2: the epoch of this round */
  MSG_PROMISED,    /* C2: fsynced */
  MSG_GROUP_STATE, /* message 2 */
  MSG_PERSISTED,   /* C3: fsynced; with hold_ms (L3), longest_ms (C7) */
  MSG_CHANGE,      /* C3: a proposal */
  MSG_RENEW,       /* L1 */
  MSG_RENEWED,     /* L1: the reply */
  MSG_ANNOUNCE,    /* message 3 */
  MSG_CONFIG,      /* messages 4 and 5 */
  MSG_MIRROR_START,/* message 6 */
  MSG_RELEASED,    /* L3: the old production host has closed everything */
  MSG_ALIVE,       /* C8 */
  MSG_ROUND,       /* C2: a new round, please */
  MSG_REPORT,      /* volatile status, opaque */
  MSG_REQUEST,     /* F6: an operator's switchover, for the production host */
  MSG_REPLY,       /* its answer, for the node that asked */
  MSG_TYPE_END,
};

struct msg_header {
  uint8_t type;
  uint8_t lineage[CRG_ID_LEN]; /* zeroes: the sender holds no state (C6) */
  uint64_t view;
  uint32_t sender;
  uint64_t incarnation;
  uint64_t epoch;              /* of the sender's state; trace only */
};

struct msg_answer {
  uint32_t round;
  bool has_state;
  struct stamp stamp;
  uint64_t promised;
  uint8_t seen_renew;    /* bit set of units: a RENEW of its present production
                            host, since it started */
  uint32_t start_wait_ms;/* left of start-wait; UINT32_MAX: not begun */
  uint8_t n_past;        /* C9: lineages that its state was recovered from */
  uint8_t past[CRG_MAX_PAST][CRG_ID_LEN];
};

struct msg_start {
  uint32_t round;
  uint64_t epoch;
  uint8_t n;             /* the answers it is based on */
  uint32_t ids[CRG_MAX_NODES];
};

struct msg_promised {
  uint32_t round;
  uint64_t epoch;
  struct stamp stamp;
};

struct msg_group_state {
  uint32_t round;
  uint64_t epoch;
  const uint8_t *bytes;  /* points into the message */
  uint32_t len;
};

struct msg_persisted {
  struct stamp stamp;
  uint8_t n_units;
  uint32_t hold_ms[CRG_MAX_IASPS]; /* L3, by unit */
  uint32_t longest_ms;   /* C7: so long a lease may run that the sender has granted */
};

struct msg_renew {
  uint8_t unit;
  uint32_t host;         /* RENEWED: whose */
  uint64_t tenure;
  uint64_t sent_ms;      /* the host's own clock, echoed */
  uint64_t domain;       /* C7: by which the host counts its votes */
  uint32_t lease_ms;     /* L1: so long the host's lease runs from sent_ms on */
};

struct announce {
  uint8_t boot_id[CRG_ID_LEN]; /* of the machine */
  uint8_t n_iasps;
  struct group_host_status iasp[CRG_MAX_IASPS];
};

struct msg_config {
  uint8_t iasp;
  uint8_t site;
  uint32_t version;      /* of the configuration: rises with each change */
  uint8_t id[CRG_ID_LEN];
  uint64_t size;
  uint32_t dirty_block;
  uint16_t mirror_port;
  uint16_t n_text;       /* SCRIPT: what its agent says */
  uint8_t text[CRG_CONFIG_MAX];
};

struct msg_mirror_start {
  uint8_t iasp;
  uint8_t site;          /* of the copy */
  uint32_t node;         /* its host ... */
  uint64_t incarnation;  /* ... in this incarnation */
  uint64_t tenure;
  uint64_t generation;
  uint8_t sync;          /* H7: enum mirror_sync */
};

struct msg_released {
  uint8_t unit;
  uint64_t tenure;
};

struct msg_request {
  uint8_t request;
  uint8_t iasp;          /* of the unit that it is about */
  uint64_t request_id;
  uint32_t node;         /* REQUEST: target or NO_NODE; REPLY: who asked */
  bool dry_run;
  uint8_t code;          /* REPLY: exit code of crgctl */
  char reason[CRG_REASON_MAX + 1];
};

struct msg {
  struct msg_header h;
  union {
    struct msg_answer answer;
    struct msg_start start;
    struct msg_promised promised;
    struct msg_group_state group_state;
    struct msg_persisted persisted;
    struct change change;
    struct msg_renew renew;      /* RENEW, RENEWED */
    struct announce announce;
    struct msg_config config;
    struct msg_mirror_start mirror_start;
    struct msg_released released;
    uint32_t round;              /* ROUND */
    struct msg_request request;  /* REQUEST, REPLY */
    struct {
      const uint8_t *bytes;      /* points into the message */
      uint32_t len;
    } report;
  } u;
};

/* Returns the length, or 0 if `len` is too small. */
extern size_t msg_encode (const struct msg *m, uint8_t *buf, size_t len);
/* 0 or -MSG_EBADMSG. */
extern int msg_decode (struct msg *m, const uint8_t *buf, size_t len);
extern const char *msg_name (uint8_t type);

#endif
