/* SPDX-License-Identifier: BSD-3-Clause */
/* The record of a client that follows production (Y3), from bytes to numbers and back: one short
 * JSON object.  Any thread; it trusts nothing that it is given.
 */
#ifndef IASP_CRG_RECORD_H
#define IASP_CRG_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "common/ident.h"

/* No record is longer. */
#define CRG_RECORD_MAX 1024

struct crg_record {
  uint64_t tenure, loss; /* the highest that were used */
  uint64_t size;         /* of the export, bytes */
  uint32_t flags;        /* FOLLOW_CAN_* */
  struct lineage lineage;
};

/* NULL, or what is wrong with it (*r is then untouched). */
extern const char *crg_record_parse (const char *text, size_t len, const char *iasp, struct crg_record *r);
/* To be freed; NULL: no memory. */
extern char *crg_record_text (const struct crg_record *r, const char *iasp);

#endif /* IASP_CRG_RECORD_H */
