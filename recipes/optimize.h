#pragma once
/// Recipe: the weight type in which a decoder is fastest on this machine and no worse, by measurement.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/json.h"
#include "core/result.h"
#include "eval/intervals.h"
#include "infer/weight_format.h"

namespace tailor {

struct OptimizeOptions {
  std::string model;           // name or path
  std::filesystem::path data;  // conversations and the like (data/chat_examples.h), or a text file
  int threads = 0;             // 0: all cores
  std::size_t tokens = 1024;   // whose predictions are compared, at most
  double max_loss = 0.01;      // nats a token by which the upper end of the 95 % interval may be worse
  int prompt_tokens = 512, answer_tokens = 128;  // of the request that is timed
};

struct FormatFigures {
  std::string name;
  std::filesystem::path file;
  std::uint64_t bytes = 0;
  FormatSpeed speed;
  double seconds = 0;  // of one request
  FormatQuality quality;
  Interval difference;  // of the loss to the original's, by paired bootstrap over rows
  bool worse = false, original = false, chosen = false;
};

struct OptimizeSummary {
  std::vector<FormatFigures> formats;  // the original first
  std::size_t rows = 0, tokens = 0;
  std::filesystem::path record;  // that `tailor serve` looks for
};

Result<OptimizeSummary> optimize_model(const OptimizeOptions& options,
                                       const std::function<void(const FormatFigures&)>& measured,
                                       const CancelToken& cancel);
Json to_json(const OptimizeSummary& summary);

}  // namespace tailor
