#pragma once
/// The methods of `tailor tune` as this program knows them without tailor-tune: names, and the models they suit. What
/// they do is in src/tune/methods.cpp; a test holds the two tables together.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "model/catalogue.h"

namespace tailor {

struct TuneMethod {
  std::string_view name;     // as on the command line
  std::string_view summary;  // one line
  bool encoders = false, decoders = false;
  ModelKind usual = ModelKind::kEncoder;  // the default model's kind, where none is named
  bool own_blocks = false;                // the frozen base stays in the blocks of the file that the user named
};

const std::vector<TuneMethod>& tune_methods();
/// Unknown names are errors with the nearest known one.
Result<TuneMethod> find_tune_method(const std::string& name);

}  // namespace tailor
