#include "core/json_names.h"

#include <unordered_set>
#include <vector>

#include "core/json.h"

namespace tailor {
namespace {

class NameCheck final : public nlohmann::json_sax<Json> {
 public:
  NameCheck(std::uint64_t most, bool once) : left_(most), once_(once) {}
  std::optional<JsonNameFault> fault;

  bool start_object(std::size_t /*elements*/) override {
    open_.emplace_back();
    return true;
  }
  bool key(std::string& name) override {
    Names& names = open_.back();
    if (names.count > left_) return fail(name, false);
    left_ -= names.count++;
    if (once_ && !names.seen.insert(name).second) return fail(name, true);
    return true;
  }
  bool end_object() override {
    open_.pop_back();
    return true;
  }
  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(std::int64_t /*value*/) override { return true; }
  bool number_unsigned(std::uint64_t /*value*/) override { return true; }
  bool number_float(double /*value*/, const std::string& /*text*/) override { return true; }
  bool string(std::string& /*value*/) override { return true; }
  bool binary(Json::binary_t& /*value*/) override { return true; }
  bool start_array(std::size_t /*elements*/) override { return true; }
  bool end_array() override { return true; }
  bool parse_error(std::size_t /*at*/, const std::string& /*token*/, const Json::exception& /*error*/) override {
    return false;
  }

 private:
  struct Names {
    std::uint64_t count = 0;
    std::unordered_set<std::string> seen;
  };
  bool fail(const std::string& name, bool twice) {
    fault = JsonNameFault{name.substr(0, 128), twice};
    return false;
  }
  std::uint64_t left_;
  const bool once_;
  std::vector<Names> open_;
};

}  // namespace

std::optional<JsonNameFault> check_json_names(std::string_view text, std::uint64_t most_comparisons, bool once) {
  NameCheck check(most_comparisons, once);
  Json::sax_parse(text, &check);
  return check.fault;
}

}  // namespace tailor
