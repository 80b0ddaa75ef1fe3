#pragma once
/// Texts with a number or with several labels: the rows, what they learn, and the part that each stands in.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/token_file.h"
#include "fit/options.h"
#include "fit/row_split.h"
#include "fit/tuned_encoder.h"
#include "model/tokenizer.h"

namespace tailor {

enum class TargetKind : std::uint8_t { kNumber, kLabelSet };

inline constexpr const char* kTaskRegression = "regression";  // of TuneOptions::task
inline constexpr const char* kTaskMultiLabel = "multi-label";

struct PreparedTargets : SplitData {
  TargetKind kind = TargetKind::kNumber;
  std::vector<std::string> texts;
  std::vector<std::uint32_t> lines;
  std::vector<std::string> label_names;  // sorted; of a number: the column alone
  std::vector<float> targets;            // [rows, width()]: the number as it stands in the file; 1 where a label holds
  double mean = 0, deviation = 1;        // of the training rows' numbers

  std::size_t rows() const { return texts.size(); }
  std::size_t width() const { return label_names.size(); }
};

/// Reads the files of `options` and splits what is not given as a part: stratified by the number's tenths, or by the
/// rarest label of a row; equal and nearly equal texts stand in one part. A function of the files and the seed. A cell
/// of labels is a JSON list (["a", "b"]), or names with `options.label_separator` between them; an empty one: none
/// holds. Rows with no text, or no number, are left out with a warning. Errors: no such column, a cell that is no
/// number, a number that never changes, no label at all, a label that the training file does not have, too few rows.
Result<PreparedTargets> prepare_targets(const TuneOptions& options);

/// Row numbers are those of `data`; numbers are standardised by its mean and deviation.
TokenFile tokenize_targets(const PreparedTargets& data, const Tokenizer& tokenizer, const EncoderReading& reading);

}  // namespace tailor
