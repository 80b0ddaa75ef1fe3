#include "core/result.h"

namespace tailor {

std::string to_string(const Error& error) {
  return error.hint.empty() ? error.message : error.message + " (" + error.hint + ")";
}

int exit_code_for(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kCorruptData:
      return 2;
    case ErrorCode::kCancelled:
      return 130;
    case ErrorCode::kIo:
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kUnavailable:
    case ErrorCode::kInternal:
      return 4;
  }
  return 4;
}

}  // namespace tailor
