/* The C ABI of perceiver-deploy: a bundle in, numbers out. docs/embedding.md has an introduction.
 *
 * - Handles are opaque. A `..._close` or `..._free` takes the address of a handle and sets it to NULL, so that closing
 *   twice is allowed.
 * - Every function that can fail returns a status, whose values are the exit codes of the command line. What went wrong
 *   is then in pd_last_error() of the calling thread. No C++ exception leaves the library.
 * - A session may be used by any number of threads at once. Options and outputs belong to one thread at a time.
 * - Within one PD_ABI_VERSION nothing here changes its meaning or its layout; functions may be added.
 */
#ifndef PERCEIVER_DEPLOY_H
#define PERCEIVER_DEPLOY_H

#include <stddef.h>
#include <stdint.h>

#define PD_ABI_VERSION 1

#if defined(_WIN32)
#define PD_API
#else
#define PD_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t pd_status;
enum {
  PD_OK = 0,
  PD_ERROR = 1,  /* a bundle or an input that cannot be used, or a failed run */
  PD_USAGE = 2,  /* an argument or an option that cannot be used */
  PD_PARITY = 3, /* numbers, or shapes of outputs, that are not what the bundle says */
  PD_MISSING = 5 /* onnxruntime, a provider or its hardware is not here */
};

typedef int32_t pd_dtype;
enum {
  PD_FLOAT32 = 1,
  PD_FLOAT16 = 2,
  PD_INT64 = 3,
  PD_UINT8 = 4,
  PD_INT16 = 5,
  PD_INT32 = 6,  /* no model takes it: it is here so that the error can name it */
  PD_FLOAT64 = 7 /* likewise */
};

typedef int32_t pd_side;
enum { PD_INPUT = 0, PD_OUTPUT = 1 };

typedef struct pd_options pd_options;
typedef struct pd_session pd_session;
typedef struct pd_outputs pd_outputs;

/* A contiguous array in C order that somebody else owns. `bytes` is the size of the memory at `data`. */
typedef struct pd_tensor {
  const char *name;
  pd_dtype dtype;
  const int64_t *shape;
  size_t rank;
  void *data; /* of an input it is only read */
  size_t bytes;
} pd_tensor;

/* What the model says of an input or output. `shape` has a number ("3"), the name of an axis ("height") or an
 * expression ("samples/16") for each dimension. All of it lives as long as the session. */
typedef struct pd_spec {
  const char *name;
  pd_dtype dtype;
  const char *const *shape;
  size_t rank;
} pd_spec;

/* Sizes that an axis may take; `maximum` is 0 where nothing bounds it. */
typedef struct pd_axis {
  const char *name;
  int64_t minimum;
  int64_t optimum;
  int64_t maximum;
  int64_t multiple_of;
} pd_axis;

/* The PD_ABI_VERSION that the library was built with, and its release. */
PD_API int32_t pd_abi_version(void);
PD_API const char *pd_version(void);

/* One paragraph on the last failure of this thread: what happened, which value, what was expected, what to do. Valid
 * until the thread's next call; empty after a success. The family is the error's class in Python ("InputError"). */
PD_API const char *pd_last_error(void);
PD_API const char *pd_last_error_family(void);

/* Options by name, as text:
 *   runtime    "onnxruntime" (CPU; "auto", the default, means it), "onnxruntime-cuda", "onnxruntime-tensorrt",
 *              "onnxruntime-tensorrt-rtx", or for the bundle's engines "tensorrt" and "tensorrt-rtx"
 *   variant    name of the variant; by default "fp32"
 *   precision  instead of a variant: the first variant of that precision
 *   threads    number of threads of one run; by default onnxruntime's own choice
 *   library    file of the onnxruntime library; by default what the environment variable PERCEIVER_DEPLOY_ONNXRUNTIME
 *              names, else the system's libonnxruntime.so.1. For engines TensorRT's: PERCEIVER_DEPLOY_TENSORRT
 *   plugin     file of the plugin that "onnxruntime-tensorrt-rtx" needs
 *   allow_nonconforming  "1" to open what does not give its own numbers here (see pd_session_conformance); "0" by default
 */
PD_API pd_status pd_options_new(pd_options **options);
PD_API pd_status pd_options_set(pd_options *options, const char *name, const char *value);
PD_API void pd_options_free(pd_options **options);

/* Opens a bundle, checks its manifest and the digests of the files that it runs. `options` may be NULL. What is opened
 * for the first time on this kind of processor, in this version of the runtime, is run once with a golden sample of the
 * bundle: PD_PARITY if it is farther than rounding explains from what its graph gives exactly. The verdict is kept in the
 * user's cache: $PERCEIVER_DEPLOY_CACHE, else perceiver-deploy in $XDG_CACHE_HOME or ~/.cache. */
PD_API pd_status pd_session_open(const char *bundle, const pd_options *options, pd_session **session);
PD_API void pd_session_close(pd_session **session);

/* What it really runs on. NULL for a NULL session, as for the manifest (the text of bundle.json: labels and more). */
PD_API const char *pd_session_runtime(const pd_session *session);
PD_API const char *pd_session_device(const pd_session *session);
PD_API const char *pd_session_variant(const pd_session *session);
PD_API const char *pd_session_manifest(const pd_session *session);

/* Whether the graphs that were opened so far give their own numbers here: "conforms", "unknown: REASON" (the bundle says
 * nothing to compare with, as those of older versions), or, where that is allowed, "does not conform: REASON". Lives as
 * long as the session; NULL for a NULL session. */
PD_API const char *pd_session_conformance(const pd_session *session);

/* Runs the golden sample in all graphs of the variant, whatever the cache says, and keeps the verdict. PD_PARITY where
 * they do not conform, also where that is allowed; PD_OK where it cannot be known. */
PD_API pd_status pd_session_check(const pd_session *session);

/* Below, `stage` is NULL for the whole model, or "full", "encoder" or "decoder". A bundle need not have all. */
PD_API int pd_session_has_stage(const pd_session *session, const char *stage);

/* How many inputs or outputs there are, and the one at `index`. */
PD_API pd_status pd_session_count(const pd_session *session, const char *stage, pd_side side, size_t *count);
PD_API pd_status pd_session_spec(const pd_session *session, const char *stage, pd_side side, size_t index,
                                 pd_spec *spec);
PD_API pd_status pd_session_axis(const pd_session *session, const char *name, pd_axis *axis);

/* Names of the classes; none where the model has none. */
PD_API size_t pd_session_label_count(const pd_session *session);
PD_API const char *pd_session_label(const pd_session *session, size_t index);

/* Runs the model. Names, dtypes, sizes and values of the inputs are checked first; nothing is copied. PD_PARITY where an
 * output has another dtype or shape than the bundle says. A bundle that has encoder and decoder beside the whole model
 * has them compared with their golden sample when one of them is first run. */
PD_API pd_status pd_session_run(const pd_session *session, const char *stage, const pd_tensor *inputs,
                                size_t input_count, pd_outputs **outputs);

/* As above, into memory of the caller: any of the outputs, each with the shape that pd_session_output_shape gives. */
PD_API pd_status pd_session_run_into(const pd_session *session, const char *stage, const pd_tensor *inputs,
                                     size_t input_count, const pd_tensor *outputs, size_t output_count);

/* Sizes of the output at `index` for these inputs, which are checked. `shape` has room for `rank` sizes. */
PD_API pd_status pd_session_output_shape(const pd_session *session, const char *stage, const pd_tensor *inputs,
                                         size_t input_count, size_t index, int64_t *shape, size_t rank);

/* Outputs in the manifest's order. What `tensor` points to lives as long as the outputs, also beyond the session. */
PD_API size_t pd_outputs_count(const pd_outputs *outputs);
PD_API pd_status pd_outputs_get(const pd_outputs *outputs, size_t index, pd_tensor *tensor);
PD_API void pd_outputs_free(pd_outputs **outputs);

#ifdef __cplusplus
}
#endif

#endif
