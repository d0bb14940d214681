// Element types by their NumPy names, sizes and numbers in onnxruntime.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstddef>
#include <string_view>

#include "perceiver_deploy/perceiver_deploy.h"

namespace pd {

struct DtypeInfo {
  pd_dtype dtype;
  std::string_view name;
  std::size_t bytes;
  ONNXTensorElementDataType onnx;
};

inline constexpr DtypeInfo kDtypes[] = {
    {PD_FLOAT32, "float32", 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
    {PD_FLOAT16, "float16", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {PD_INT64, "int64", 8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {PD_UINT8, "uint8", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
    {PD_INT16, "int16", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16},
    {PD_INT32, "int32", 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
    {PD_FLOAT64, "float64", 8, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
};

// NULL for a number that is not a pd_dtype, as other languages may give.
inline const DtypeInfo *dtype_info(pd_dtype dtype) {
  for (const DtypeInfo &info : kDtypes) {
    if (info.dtype == dtype) return &info;
  }
  return nullptr;
}

// NumPy's name of an element type, also of those that no model has.
inline std::string_view onnx_dtype_name(ONNXTensorElementDataType type) {
  for (const DtypeInfo &info : kDtypes) {
    if (info.onnx == type) return info.name;
  }
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return "bool";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return "int8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16:
      return "uint16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32:
      return "uint32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64:
      return "uint64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16:
      return "bfloat16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING:
      return "object";
    default:
      return "another type";
  }
}

inline const DtypeInfo *dtype_named(std::string_view name) {
  for (const DtypeInfo &info : kDtypes) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

}  // namespace pd
