#pragma once
/// The methods of `tailor tune` as this program knows them without tailor-tune: names, and what they suit. What they do
/// is in src/tune/methods.cpp; a test holds the two tables together, another one the table of docs/methods/README.md.

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
  bool one_label = false;                 // encoders: for one label a text (or pair of texts), and no other task
};

/// "encoders, any task; decoders", as `--method list` shows it.
std::string uses_of(const TuneMethod& method);

const std::vector<TuneMethod>& tune_methods();
/// Unknown names are errors with the nearest known one.
Result<TuneMethod> find_tune_method(const std::string& name);

}  // namespace tailor
