#include <tuple>

#include "core/json.h"
#include "fuzz.h"
#include "prompt/calibration.h"

namespace tailor::fuzz {

std::vector<std::string> seeds() {
  return {R"({"a":[1,2.5,-3e10,null,true],"b":{"c":"\u00e4\ud83d\ude00"}})", R"([[[[[]]]],"x"])",
          R"({"kind":"batch_mean","length_normalised":true,"bias":[-1.5,0],"norm":[2,3]})"};
}

}  // namespace tailor::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto json = tailor::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz.json");
  if (!json) return 0;
  const auto again = tailor::parse_json(tailor::dump_json(*json), "written");
  if (!again) __builtin_trap();  // what is read can be written and read
  std::ignore = tailor::Calibration::from_json(*json);
  return 0;
}
