#pragma once
/// The flags of `tailor tune`, made from the table of settings (config/setting.h), and what was said by them.

#include <CLI/CLI.hpp>
#include <deque>
#include <string>
#include <vector>

#include "config/tune_config.h"
#include "core/result.h"
#include "fit/options.h"

namespace tailor {

class TuneFlags {
 public:
  /// A flag for each setting that has one. Those that the verb has already, bound to `bound`, are left as they are and
  /// read from there.
  void add(CLI::App& verb, const DataOptions& bound);

  /// Everything said: the file of --config, then flags and --set over it. Errors of reading the file alone are
  /// returned; all others are in the configuration, which is checked together.
  Result<TuneConfig> read() const;

 private:
  struct Flag {
    const Setting* setting;
    CLI::Option* option;
    std::string name;
    bool bound;
    bool on;                         // of a flag without words
    std::string word;                // of a setting with one value
    std::vector<std::string> words;  // of one with several
  };
  const DataOptions* bound_ = nullptr;
  std::deque<Flag> flags_;  // CLI11 keeps their addresses
  std::string config_file_;
  std::vector<std::string> sets_;
};

/// All errors of a configuration as one, a line each.
Error as_one(const std::vector<Error>& errors);

}  // namespace tailor
