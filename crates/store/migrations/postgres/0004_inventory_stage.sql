-- What inventory has booked: adjustments by their id, orders as short/<order> and cancelled/<order>.
create table stock_moves (like picks including defaults including constraints including storage, primary key (key))
    with (toast_tuple_target = 8160);
create index stock_moves_decided_at on stock_moves using brin (decided_at);
