#include "apps/tailor/store_options.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

#include "store/default_directory.h"

namespace tailor {

void add_data_option(CLI::App& verb, std::string& data) {
  verb.add_option("--data", data, "directory of keys, packages and jobs ($TAILOR_DATA, else ~/.local/share/tailor)")
      ->type_name("DIR");
}

Result<std::unique_ptr<Store>> open_store(const std::string& data, bool must_exist) {
  const std::filesystem::path directory = data.empty() ? default_store_directory() : std::filesystem::path(data);
  if (directory.empty())
    return Error{ErrorCode::kInvalidArgument, "there is no place for data: neither $TAILOR_DATA nor $HOME is set",
                 "name one with --data DIR"};
  return Store::open(directory, {.must_exist = must_exist});
}

std::string utc(std::optional<std::int64_t> unix_seconds) {
  if (!unix_seconds) return "-";
  const std::time_t time = *unix_seconds;
  std::tm parts{};
  if (gmtime_r(&time, &parts) == nullptr) return std::to_string(*unix_seconds);
  return fmt::format("{:%Y-%m-%d %H:%M} UTC", parts);
}

}  // namespace tailor
