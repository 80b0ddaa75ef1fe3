#include "serve/web_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace tailor {
namespace {

struct Taken {
  WebReply reply;
  std::size_t max_bytes;
  bool too_long = false;
  const CancelToken* cancel;
};

std::size_t on_bytes(char* bytes, std::size_t size, std::size_t n, void* user) {
  auto& taken = *static_cast<Taken*>(user);
  if (taken.reply.body.size() + size * n > taken.max_bytes) {
    taken.too_long = true;
    return 0;
  }
  taken.reply.body.append(bytes, size * n);
  return size * n;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto* cancel = static_cast<Taken*>(user)->cancel;
  return cancel != nullptr && cancel->cancelled() ? 1 : 0;
}

}  // namespace

Result<WebReply> ask_web(const WebRequest& request, const CancelToken* cancel) {
  static const CURLcode kReady = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  if (kReady != CURLE_OK || !curl) return Error{ErrorCode::kUnavailable, "libcurl does not start", ""};
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> fields(nullptr, curl_slist_free_all);
  for (const auto& [name, value] : request.fields) {
    if ((name + value).find_first_of("\r\n") != std::string::npos)
      return Error{ErrorCode::kInvalidArgument, fmt::format("the header '{}' holds a line break", name.substr(0, name.find_first_of("\r\n"))), ""};
    curl_slist* longer = curl_slist_append(fields.get(), (name + ": " + value).c_str());
    if (longer == nullptr) return Error{ErrorCode::kOutOfMemory, "no memory for a request", ""};
    fields.release();
    fields.reset(longer);
  }
  Taken taken{{}, request.max_bytes, false, cancel};
  char reason[CURL_ERROR_SIZE] = "";
  const auto set = [&](CURLoption option, auto value) { curl_easy_setopt(curl.get(), option, value); };
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 0L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::min(request.timeout, std::chrono::milliseconds(5000)).count()));
  set(CURLOPT_ERRORBUFFER, reason);
  set(CURLOPT_HTTPHEADER, fields.get());
  set(CURLOPT_USERAGENT, "tailor/" TAILOR_VERSION);
  set(CURLOPT_WRITEFUNCTION, on_bytes);
  set(CURLOPT_WRITEDATA, &taken);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, on_progress);
  set(CURLOPT_XFERINFODATA, &taken);
  if (request.body) {
    set(CURLOPT_POST, 1L);
    set(CURLOPT_POSTFIELDS, request.body->data());
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body->size()));
  }
  const CURLcode code = curl_easy_perform(curl.get());
  if (taken.too_long) return Error{ErrorCode::kCorruptData, fmt::format("{}: the answer is longer than {} bytes", request.url, request.max_bytes), ""};
  if (code == CURLE_ABORTED_BY_CALLBACK) return Error{ErrorCode::kCancelled, "cancelled", ""};
  if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)
    return Error{ErrorCode::kInvalidArgument, fmt::format("'{}' is no http or https URL", request.url), ""};
  if (code != CURLE_OK)
    return Error{ErrorCode::kUnavailable, fmt::format("{}: {}", request.url, reason[0] != 0 ? reason : curl_easy_strerror(code)), ""};
  long status = 0;
  curl_off_t retry_after = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(curl.get(), CURLINFO_RETRY_AFTER, &retry_after);
  taken.reply.status = static_cast<int>(status);
  if (retry_after > 0) taken.reply.retry_after_s = static_cast<int>(std::min<curl_off_t>(retry_after, 3600));
  return std::move(taken.reply);
}

}  // namespace tailor
