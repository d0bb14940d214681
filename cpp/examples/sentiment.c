/* sentiment BUNDLE TEXT: the class of a text, in C. The bundle is one of text classification, made with
 * `export --raw-inputs`: its graph takes UTF-8 bytes. */
#include <perceiver_deploy/perceiver_deploy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(pd_status status) {
  if (status != PD_OK) fprintf(stderr, "Error: %s\n", pd_last_error());
  return status != PD_OK;
}

static pd_status print_class(const pd_session *session, const pd_outputs *outputs) {
  pd_tensor logits;
  pd_status status = pd_outputs_get(outputs, 0, &logits);
  if (failed(status)) return status;
  const float *values = logits.data;
  int64_t best = 0;
  for (int64_t index = 1; index < logits.shape[1]; ++index) {
    if (values[index] > values[best]) best = index;
  }
  const char *label = pd_session_label(session, (size_t)best);
  printf("%s\n", label != NULL ? label : "(no label)");
  return PD_OK;
}

static pd_status classify(const pd_session *session, char *text) {
  const size_t length = strlen(text);
  int64_t *mask = malloc((length + 1) * sizeof *mask); /* 1 where there is a byte */
  if (mask == NULL) return PD_ERROR;
  for (size_t index = 0; index < length; ++index)
    mask[index] = 1;
  const int64_t shape[2] = {1, (int64_t)length};
  const pd_tensor inputs[2] = {{"utf8", PD_UINT8, shape, 2, text, length},
                               {"attention_mask", PD_INT64, shape, 2, mask, length * sizeof *mask}};
  pd_outputs *outputs = NULL;
  pd_status status = pd_session_run(session, NULL, inputs, 2, &outputs);
  if (!failed(status)) status = print_class(session, outputs);
  pd_outputs_free(&outputs);
  free(mask);
  return status;
}

int main(int count, char **arguments) {
  if (count != 3) {
    fprintf(stderr, "usage: %s BUNDLE TEXT\n", arguments[0]);
    return PD_USAGE;
  }
  pd_session *session = NULL;
  pd_status status = pd_session_open(arguments[1], NULL, &session);
  if (!failed(status)) status = classify(session, arguments[2]);
  pd_session_close(&session);
  return status;
}
