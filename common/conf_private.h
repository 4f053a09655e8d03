/* SPDX-License-Identifier: BSD-3-Clause */
/* What conf.c (files), conf_check.c (rules) and nobody else share.
 */
#ifndef CRG_CONF_PRIVATE_H
#define CRG_CONF_PRIVATE_H

#include "common/conf.h"

enum conf_section { SEC_NODE, SEC_ENGINE, SEC_LEASE, SEC_CLIENT, SEC_CRG, SEC_DOMAIN, SEC_IASP, SEC_SCRIPT,
                    N_SECTIONS };

/* A check reports a place in the definition; the reader of a file turns it into a line. */
struct conf_place {
  enum conf_section section;
  unsigned index;  /* of the node or IASP */
  const char *key; /* or NULL: the section */
  char text[CONF_ERR_MAX + 1];
};

/* All but the IASPs: what has to hold before a store can be given by node or site.  0, or -EINVAL
 * and *pl. */
extern int conf_check_group (struct conf_crg *c, struct conf_place *pl);
/* Everything.  0, or -EINVAL and *pl. */
extern int conf_check_definition (struct conf_crg *c, struct conf_place *pl);

/* Decimal digits alone.  0, -EINVAL or -ERANGE. */
extern int conf_parse_number (const char *text, uint64_t *value);
/* [ADDRESS]:PORT; 'address' becomes "" for :PORT.  NULL, or what is wrong, as the end of a
 * sentence. */
extern const char *conf_parse_listen (const char *text, char address[CRG_ADDR_MAX + 1], uint32_t *port);
/* NULL, or what is wrong with a path, as the end of a sentence. */
extern const char *conf_path_error (const char *text);
extern bool conf_can_host (const struct conf_node *n);
extern bool conf_same_site (const struct conf_node *a, const struct conf_node *b);

#endif /* CRG_CONF_PRIVATE_H */
