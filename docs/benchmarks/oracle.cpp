// The hnswlib side of oracle.py: builds a graph on one thread, searches it with several beams and counts how many
// distances that takes. One line of JSON per beam.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "hnswlib/hnswlib.h"

// A space whose distances are those of another, and counted.
class Counting : public hnswlib::SpaceInterface<float> {
  public:
    explicit Counting(hnswlib::SpaceInterface<float>& of) : of_(of) { inner = of.get_dist_func(); }

    size_t get_data_size() override { return of_.get_data_size(); }
    hnswlib::DISTFUNC<float> get_dist_func() override { return distance; }
    void* get_dist_func_param() override { return of_.get_dist_func_param(); }

    static uint64_t calls;

  private:
    static float distance(const void* a, const void* b, const void* dim) {
        ++calls;
        return inner(a, b, dim);
    }

    // hnswlib takes a plain function, which knows no object.
    static hnswlib::DISTFUNC<float> inner;
    hnswlib::SpaceInterface<float>& of_;
};

uint64_t Counting::calls = 0;
hnswlib::DISTFUNC<float> Counting::inner = nullptr;

// A whole file of rows.
template <typename T>
static std::vector<T> read(const char* path, size_t columns) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw std::runtime_error(std::string(path) + " cannot be read");
    const size_t bytes = file.tellg();
    if (bytes == 0 || bytes % (columns * sizeof(T)) != 0) throw std::runtime_error(std::string(path) + ": no whole rows");
    std::vector<T> values(bytes / sizeof(T));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(values.data()), bytes);
    if (!file) throw std::runtime_error(std::string(path) + " cannot be read");
    return values;
}

static void run(char** argument) {
    const std::string metric = argument[1];
    const size_t dim = std::stoul(argument[2]), k = std::stoul(argument[3]);
    const size_t m = std::stoul(argument[4]), ef_construction = std::stoul(argument[5]);
    const std::vector<float> base = read<float>(argument[6], dim), queries = read<float>(argument[7], dim);
    // The exact neighbours: k rows per query.
    const std::vector<int32_t> truth = read<int32_t>(argument[8], k);
    const size_t n = base.size() / dim, asked = queries.size() / dim;
    if (truth.size() != asked * k) throw std::runtime_error("queries and neighbours do not belong together");

    hnswlib::L2Space l2(dim);
    hnswlib::InnerProductSpace product(dim);
    if (metric != "l2" && metric != "ip") throw std::runtime_error("the metric is l2 or ip");
    Counting space(metric == "l2" ? static_cast<hnswlib::SpaceInterface<float>&>(l2) : product);
    hnswlib::HierarchicalNSW<float> index(&space, n, m, ef_construction);
    for (size_t row = 0; row < n; ++row) index.addPoint(&base[row * dim], row);

    for (char** ef = argument + 9; *ef; ++ef) {
        index.setEf(std::stoul(*ef));
        Counting::calls = 0;
        size_t hits = 0;
        for (size_t query = 0; query < asked; ++query) {
            for (auto found = index.searchKnn(&queries[query * dim], k); !found.empty(); found.pop()) {
                for (size_t i = 0; i < k; ++i) hits += truth[query * k + i] == static_cast<int64_t>(found.top().second);
            }
        }
        std::printf("{\"ef\": %s, \"recall\": %.4f, \"distances\": %.1f}\n", *ef, double(hits) / truth.size(),
                    double(Counting::calls) / asked);
    }
}

int main(int count, char** argument) {
    if (count < 10) {
        std::fputs("oracle l2|ip DIM K M EF_CONSTRUCTION BASE QUERIES TRUTH EF...\n", stderr);
        return 2;
    }
    try {
        run(argument);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
