#include "serve/text_batcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tailor {
namespace {

double seconds(SteadyTime from, SteadyTime to) {
  return std::chrono::duration<double>(to - from).count();
}

TextBatcherOptions with_clock(TextBatcherOptions options) {
  if (!options.clock) options.clock = [] { return std::chrono::steady_clock::now(); };
  return options;
}

}  // namespace

TextBatcher::TextBatcher(Compute compute, std::shared_ptr<ComputeShare> share, TextBatcherOptions options)
    : compute_(std::move(compute)), share_(std::move(share)), options_(with_clock(std::move(options))), thread_([this] { run(); }) {}

TextBatcher::~TextBatcher() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  for (Item& item : queue_) item.done(Error{ErrorCode::kCancelled, "the model was removed before the answer", ""});
}

Status TextBatcher::submit(std::vector<std::string> texts, Done done, std::function<bool()> gone) {
  std::size_t bytes = 0;
  for (const std::string& text : texts) bytes += text.size() + 1;
  {
    const std::lock_guard lock(mutex_);
    if (waiting_ + texts.size() > options_.queue_texts)
      return Error{ErrorCode::kUnavailable, fmt::format("the queue is full: {} texts wait", waiting_), "try again later"};
    if (const double wait = wait_seconds(); wait > std::chrono::duration<double>(options_.waiting_time).count()) {
      return Error{ErrorCode::kUnavailable, fmt::format("the server is overloaded: {} texts wait, which takes about {:.0f} s", waiting_, wait),
                   "try again later"};
    }
    waiting_ += texts.size();
    waiting_bytes_ += bytes;
    queue_.push_back({std::move(texts), std::move(done), std::move(gone), options_.clock(), bytes});
  }
  changed_.notify_one();
  return {};
}

std::size_t TextBatcher::waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_;
}

double TextBatcher::wait_seconds() const {
  const auto rate = drain_.per_second();
  return rate ? static_cast<double>(waiting_bytes_) / *rate : 0;
}

double TextBatcher::expected_wait() const {
  const std::lock_guard lock(mutex_);
  return wait_seconds();
}

void TextBatcher::run() {
  double done = 0;  // bytes of the last batch
  for (;;) {
    std::vector<Item> items;
    {
      std::unique_lock lock(mutex_);
      drain_.advance(std::exchange(done, 0), !queue_.empty(), options_.clock());
      changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      std::size_t texts = 0;
      while (!queue_.empty() && (items.empty() || texts + queue_.front().texts.size() <= options_.batch_texts)) {
        texts += queue_.front().texts.size();
        waiting_ -= queue_.front().texts.size();
        waiting_bytes_ -= queue_.front().bytes;
        done += static_cast<double>(queue_.front().bytes);
        items.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
    }
    std::erase_if(items, [](const Item& item) { return item.gone && item.gone(); });
    if (!items.empty()) answer(items);
  }
}

void TextBatcher::answer(std::vector<Item>& items) {
  std::vector<std::string> texts;
  for (Item& item : items) std::move(item.texts.begin(), item.texts.end(), std::back_inserter(texts));
  const SteadyTime begin = options_.clock();
  Result<Matrix> rows = Error{};
  try {
    ComputeShare::Busy busy(*share_);
    busy.set(true);
    const ComputeShare::Turn turn(*share_);
    rows = compute_(texts);
  } catch (const std::exception& e) {
    rows = Error{ErrorCode::kInternal, fmt::format("the batch failed: {}", e.what()), ""};
  }
  const SteadyTime end = options_.clock();
  std::size_t first = 0;
  for (Item& item : items) {
    const std::size_t n = item.texts.size();
    if (!rows.has_value()) {
      item.done(rows.error());
      continue;
    }
    BatchedRows out{Matrix(n, rows->cols), seconds(item.since, begin), seconds(begin, end), texts.size()};
    std::copy_n(rows->data.begin() + static_cast<std::ptrdiff_t>(first * rows->cols), n * rows->cols, out.rows.data.begin());
    first += n;
    item.done(std::move(out));
  }
}

}  // namespace tailor
