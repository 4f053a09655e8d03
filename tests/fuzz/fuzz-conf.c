/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: the two configuration files and the JSON form of a definition.  What is accepted
 * must survive the way through JSON unchanged.
 */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "common/conf.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static struct conf_crgd crgd;
  static struct conf_crg crg, again;
  char err[CONF_ERR_MAX + 1];
  char *text;
  json_t *json;

  if (size < 1 || size > 16384 || !(text = malloc (size)))
    return 0;
  memcpy (text, data + 1, size - 1);
  text[size - 1] = '\0';
  switch (data[0] % 3) {
  case 0:
    (void) conf_parse_crgd ("f", text, size - 1, &crgd, err, sizeof err);
    break;
  case 1:
    if (conf_parse_crg ("f", text, size - 1, &crg, err, sizeof err) == 0) {
      json = conf_crg_to_json (&crg);
      if (!json || conf_crg_from_json (json, &again, err, sizeof err) != 0)
        abort ();
      json_decref (json);
    }
    break;
  case 2:
    json = json_loadb (text, size - 1, 0, NULL);
    if (json && conf_crg_from_json (json, &crg, err, sizeof err) == 0 &&
        (crg.n_nodes > CRG_MAX_NODES || crg.n_iasps > CRG_MAX_IASPS))
      abort ();
    json_decref (json);
    break;
  }
  free (text);
  return 0;
}
